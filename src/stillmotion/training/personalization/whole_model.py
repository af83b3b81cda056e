"""Writing a whole image model: as a diffusers folder, or as the one file that other programs read."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stillmotion.checkpoints.writing import write_tensors, written_beside
from stillmotion.errors import MismatchError
from stillmotion.t2i.models import T2I
from stillmotion.t2i.original_names import TEXT_PREFIX, UNET_PREFIX, VAE_PREFIX, unet_layers, vae_layers

CLIP_WORDS = 49408
"""How many tokens CLIP's own tokenizer knows: a single file has no place for another tokenizer."""

_INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionPipeline",
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "safety_checker": [None, None],
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
}


def save_folder(
    t2i: T2I, folder: Path, *, dtype: torch.dtype = torch.float16, metadata: Mapping[str, str] | None = None
) -> Path:
    """Write a model as a diffusers folder, whole or not at all, in place of one that was there; return the folder.

    `metadata` stands in the header of the UNet's file. Raises `FileError` where it cannot be written.
    """
    before = folder.with_name(f".{folder.name}.before")
    shutil.rmtree(before, ignore_errors=True)
    if folder.is_dir():
        folder.rename(before)
    try:
        with written_beside(folder) as beside:
            _write_folder(t2i, beside, dtype, metadata or {})
    except BaseException:
        if before.is_dir() and not folder.exists():
            before.rename(folder)
        raise
    shutil.rmtree(before, ignore_errors=True)
    return folder


def _write_folder(t2i: T2I, folder: Path, dtype: torch.dtype, metadata: Mapping[str, str]) -> None:
    name = str(t2i.scheduler_config.get("_class_name", "DDIMScheduler"))
    for part in ("unet", "vae"):
        model = getattr(t2i, part)
        model.save_config(str(folder / part))
        told = metadata if part == "unet" else {}
        write_tensors(
            folder / part / "diffusion_pytorch_model.safetensors", dict(_cast(model.state_dict(), dtype)), told
        )
    t2i.text_encoder.config.save_pretrained(str(folder / "text_encoder"))
    config = folder / "text_encoder" / "config.json"
    # Half precision is for the disk: transformers computes in what stands here, diffusers in float32.
    _write_json(config, {**json.loads(config.read_text(encoding="utf-8")), "dtype": "float32"})
    write_tensors(folder / "text_encoder" / "model.safetensors", dict(_cast(_text_state(t2i), dtype)))
    t2i.tokenizer.save_pretrained(str(folder / "tokenizer"))
    (folder / "scheduler").mkdir()
    _write_json(folder / "scheduler" / "scheduler_config.json", {**t2i.scheduler_config, "_class_name": name})
    _write_json(folder / "model_index.json", {**_INDEX, "scheduler": ["diffusers", name]})


def require_one_file(t2i: T2I) -> None:
    """Raise `MismatchError` for a model that a single file cannot tell: one with another tokenizer than CLIP's."""
    words = t2i.text_encoder.config.vocab_size
    if words < CLIP_WORDS or len(t2i.tokenizer) < CLIP_WORDS:
        raise MismatchError(
            f"{t2i.source}: its tokenizer knows {len(t2i.tokenizer)} tokens and is not CLIP's, for which a single file has no "
            f"place; write it as diffusers' folder."
        )


def save_single_file(
    t2i: T2I, path: Path, *, dtype: torch.dtype = torch.float16, metadata: Mapping[str, str] | None = None
) -> Path:
    """Write a model as one .safetensors file under Stable Diffusion's original names, in place of one; return the path.

    A model that predicts v carries the mark `v_pred`, by which this and other programs know it. Raises `FileError` where
    it cannot be written, `MismatchError` as `require_one_file`.
    """
    require_one_file(t2i)
    tensors = {
        **_original(t2i.unet, unet_layers(t2i.unet), UNET_PREFIX),
        **_original(t2i.vae, vae_layers(t2i.vae), VAE_PREFIX),
        **{f"{TEXT_PREFIX}{name}": value for name, value in _text_state(t2i).items()},
    }
    if t2i.prediction_type == "v_prediction":
        tensors["v_pred"] = torch.zeros(1)
    return write_tensors(path, dict(_cast(tensors, dtype)), metadata or {}, overwrite=True)


def _text_state(t2i: T2I) -> dict[str, Tensor]:
    """Return the text encoder's weights with "text_model." before their names, which transformers 5 took away."""
    state = t2i.text_encoder.state_dict()
    return {f"text_model.{name.removeprefix('text_model.')}": value for name, value in state.items()}


def _original(model: nn.Module, layers: Mapping[str, str], prefix: str) -> dict[str, Tensor]:
    """Return a model's weights under original names; a VAE's attention as the 1×1 convolutions that it was there."""
    named = {}
    for name, value in model.state_dict().items():
        layer, _, leaf = name.rpartition(".")
        was_convolution = ".attn_1." in layers[layer] and value.ndim == 2
        named[f"{prefix}{layers[layer]}.{leaf}"] = value[..., None, None] if was_convolution else value
    return named


def _cast(state: Mapping[str, Tensor], dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    for name, value in state.items():
        yield name, value.detach().to(dtype) if value.is_floating_point() else value


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
