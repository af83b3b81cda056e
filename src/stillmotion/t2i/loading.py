"""Loading an image model, whatever its packaging: a diffusers folder, a hub id, a single file; with its own VAE or another."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from stillmotion.errors import FileError, MismatchError
from stillmotion.t2i.geometry import XL_CONFIGS, shipped
from stillmotion.t2i.hub import from_hub
from stillmotion.t2i.models import T2I
from stillmotion.t2i.original_names import VAE_PREFIX
from stillmotion.t2i.reading import SINGLE_FILES, read_tensors
from stillmotion.t2i.single_file import Part, load_single_file, make_vae, part_of

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
"""What a diffusers folder must hold."""

XL_PARTS = (*PARTS, "text_encoder_2", "tokenizer_2")
"""What one of Stable Diffusion XL must."""

_WEIGHTS = (("safetensors", ""), ("safetensors", "fp16"), ("bin", ""), ("bin", "fp16"))  # in order of preference
_WITH_WEIGHTS = ("unet", "vae", "text_encoder", "text_encoder_2")
_STORED = "position_ids"  # a count from 0, which programs of old stored with the weights


def load_t2i(
    source: str | Path,
    *,
    vae: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> T2I:
    """Return the image model that `source` names, ready to sample: in eval mode, nothing of it requiring gradients.

    Args:
        source: A diffusers folder, a hub id, or a single .safetensors or .ckpt file of Stable Diffusion 1.x or XL, which
            needs no network.
        vae: Another VAE than the model's own: a folder, a file of a VAE in any layout, or a whole checkpoint, of which
            the VAE is taken.
        dtype: How weights are held and computed with.
        device: Where they are.

    Raises:
        FileError: A file is missing, damaged, unsafe, or no image model; the message says what it is.
        MismatchError: It is of a family that is not known here, its parts do not fit each other, or it has weights
            missing or too many.
    """
    path = Path(source).expanduser()
    other = load_vae(vae, dtype) if vae is not None else None
    if path.is_file() or (not path.exists() and path.suffix.lower() in SINGLE_FILES):
        model = load_single_file(path, other)
    else:
        model = _load_folder(path if path.is_dir() else from_hub(str(source), PARTS), other, dtype)
        model.source = str(source)
    if vae is not None:
        model.report.append(f"{Path(vae).name} stands in for the model's own VAE")
        model.files |= dict.fromkeys(_vae_files(Path(vae).expanduser()), "vae")
        if model.is_xl and Path(vae).expanduser().is_file():  # shapes do not tell whose latents it makes
            model.vae.register_to_config(scaling_factor=shipped("vae", configs=XL_CONFIGS)["scaling_factor"])
    _check_parts(model)
    for module in model.parts.values():
        module.eval().requires_grad_(requires_grad=False)
    return model.to(device, dtype)


def load_vae(source: str | Path, dtype: torch.dtype = torch.float32) -> AutoencoderKL:
    """Return a VAE: of a diffusers folder or the model folder around it, or of a file in original or diffusers' names.

    Of a whole checkpoint its VAE is taken. Raises `FileError` or `MismatchError` as `load_t2i`.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _part(AutoencoderKL, _vae_folder(path), dtype, [])
    tensors, _ = read_tensors(path)
    part = part_of(tensors, VAE_PREFIX, f"{path}: the VAE")
    part = part if part.tensors else Part(tensors=tensors, where=str(path))
    if "decoder.conv_in.weight" not in part.tensors:
        raise FileError(f"vae: {path} is no VAE; its {len(tensors)} tensors begin with {min(tensors)}.")
    return make_vae(part)


def _load_folder(folder: Path, vae: AutoencoderKL | None, dtype: torch.dtype) -> T2I:
    """Return the model of a diffusers folder; `vae` stands in for its own."""
    wide = (folder / "text_encoder_2").is_dir()
    parts = [part for part in (XL_PARTS if wide else PARTS) if part != "vae" or vae is None]
    _check_folder(folder, parts)
    report: list[str] = []
    files = {file: part for part in parts if part in _WITH_WEIGHTS for file in _weights(folder / part)[0]}
    second: dict[str, Any] = {}
    if wide:
        second["text_encoder_2"] = _part(CLIPTextModelWithProjection, folder / "text_encoder_2", dtype, report)
        second["tokenizer_2"] = _tokenizer(folder / "tokenizer_2")
        index = _json(folder / "model_index.json") if (folder / "model_index.json").is_file() else {}
        second["zeros_for_empty_text"] = bool(index.get("force_zeros_for_empty_prompt", True))
    return T2I(
        unet=_part(UNet2DConditionModel, folder / "unet", dtype, report),
        vae=vae if vae is not None else _part(AutoencoderKL, folder / "vae", dtype, report),
        text_encoder=_part(CLIPTextModel, folder / "text_encoder", dtype, report),
        tokenizer=_tokenizer(folder / "tokenizer"),
        **second,
        scheduler_config=_json(folder / "scheduler" / "scheduler_config.json"),
        source=str(folder),
        files=files,
        report=report,
    )


def _part(kind: Any, folder: Path, dtype: torch.dtype, report: list[str]) -> Any:
    """Return one model of a diffusers folder, every weight of which came from its files; note what else they hold."""
    files, options = _weights(folder)
    options |= {"dtype" if kind in (CLIPTextModel, CLIPTextModelWithProjection) else "torch_dtype": dtype}
    try:
        model, info = kind.from_pretrained(str(folder), local_files_only=True, output_loading_info=True, **options)
    except Exception as error:  # The libraries raise many kinds for a damaged file or config.
        reason = str(error).strip().splitlines()
        raise FileError(f"{folder} cannot be loaded ({reason[0] if reason else error!r}); fetch it again.") from error
    wrong = {"lacks": info["missing_keys"], "has others in size:": info["mismatched_keys"]}
    for what, keys in wrong.items():
        if keys:
            raise MismatchError(
                f"{folder} {what} {len(keys)} weights that its config.json asks for, first {min(map(str, keys))}."
            )
    if extra := [key for key in info["unexpected_keys"] if not key.endswith(_STORED)]:
        report.append(
            f"{folder.name}/{files[0].name}: {len(extra)} tensors skipped, which no layer takes: {min(extra)}, …"
        )
    return model


def _weights(folder: Path) -> tuple[list[Path], dict[str, Any]]:
    """Return the files of a part's weights, and what to ask diffusers for so that it reads these."""
    for ending, variant in _WEIGHTS:
        of = rf"(\.{variant})" if variant else ""
        whole = rf"(diffusion_pytorch_model|pytorch_model|model)({of}(-\d+-of-\d+)?|(-\d+-of-\d+)?{of})\.{ending}"
        found = sorted(file for file in folder.glob(f"*.{ending}") if re.fullmatch(whole, file.name))
        if found:
            return found, {"use_safetensors": ending == "safetensors", **({"variant": variant} if variant else {})}
    raise FileError(
        f"{folder} has no weights: no {' or '.join(ending for ending, _ in _WEIGHTS[::2])} file that is known."
    )


def _tokenizer(folder: Path) -> CLIPTokenizer:
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise FileError(f"{folder} is no tokenizer: it has neither tokenizer.json nor vocab.json and merges.txt.")
    try:
        return CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # As for weights.
        raise FileError(f"{folder} is no tokenizer of CLIP's that can be read ({error}).") from error


def _check_folder(folder: Path, parts: list[str]) -> None:
    missing = [part for part in parts if not (folder / part).is_dir()]
    if missing:
        raise FileError(
            f"{folder} is no Stable Diffusion model in diffusers' layout: it has no {', '.join(missing)}. Give the "
            "folder that holds model_index.json."
        )
    name = _json(folder / "unet" / "config.json").get("_class_name", "UNet2DConditionModel")
    if name != "UNet2DConditionModel":
        raise MismatchError(f"{folder}/unet is a {name}; motion plugs into a UNet2DConditionModel.")


def _check_parts(model: T2I) -> None:
    """Refuse parts that do not fit each other, as an inpainting model's UNet and its VAE."""
    channels, latents = model.unet.config.in_channels, model.vae.config.latent_channels
    if channels != latents:
        why = (
            "made for inpainting or editing; use the plain text-to-image model"
            if channels > latents
            else "of other kinds"
        )
        raise MismatchError(
            f"{model.source}: the UNet takes {channels} channels, the VAE gives {latents}: they are {why}."
        )
    wanted, given = model.unet.config.cross_attention_dim, model.text_encoder.config.hidden_size
    if model.text_encoder_2 is not None:
        given += model.text_encoder_2.config.hidden_size
        _check_sizes_and_whole_texts(model, model.text_encoder_2.config.projection_dim)
    if wanted != given:
        raise MismatchError(
            f"{model.source}: the UNet takes text features of width {wanted}, its text encoder gives {given}."
        )


def _check_sizes_and_whole_texts(model: T2I, projection: int) -> None:
    """Refuse a UNet that does not take what Stable Diffusion XL's does beside tokens: six sizes and a whole text."""
    config = model.unet.config
    wanted = config.projection_class_embeddings_input_dim
    given = 6 * (config.addition_time_embed_dim or 0) + projection
    if config.addition_embed_type != "text_time" or wanted != given:
        raise MismatchError(
            f"{model.source}: beside tokens the UNet takes {config.addition_embed_type} of width {wanted}, expected "
            f"text_time of width {given}: six sizes and the second text encoder's {projection} features."
        )


def _vae_folder(path: Path) -> Path:
    found = next((folder for folder in (path, path / "vae") if (folder / "config.json").is_file()), None)
    if found is None or _json(found / "config.json").get("_class_name") != "AutoencoderKL":
        raise FileError(f"vae: {path} is no diffusers folder of an AutoencoderKL.")
    return found


def _vae_files(path: Path) -> list[Path]:
    return _weights(_vae_folder(path))[0] if path.is_dir() else [path]


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise FileError(f"{path} is missing or no JSON ({error}).") from error
