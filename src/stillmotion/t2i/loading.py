"""Loading an image model: a diffusers folder, a hub id, or a single file of Stable Diffusion 1.5, without network."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers import CLIPTextModel, CLIPTokenizer

from stillmotion.errors import FileError, MismatchError
from stillmotion.t2i.models import T2I

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
SINGLE_FILE = (".safetensors", ".ckpt", ".pt", ".pth")


def load_t2i(
    source: str | Path, *, vae: str | Path | None = None, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> T2I:
    """Return the image model that `source` names: a diffusers folder, a single file, or a hub id.

    `vae` replaces its autoencoder (a folder). Raises `FileError` saying what is there instead.
    """
    path = Path(source).expanduser()
    if path.is_file() or path.suffix in SINGLE_FILE:
        folder = _single_file_not_yet(path)
    else:
        folder = path if path.exists() else _from_hub(str(source))
    _check_folder(folder)
    part = {"torch_dtype": dtype, "local_files_only": True, **_variant(folder)}
    model = T2I(
        unet=UNet2DConditionModel.from_pretrained(folder, subfolder="unet", **part),
        vae=_vae(Path(vae), dtype) if vae else AutoencoderKL.from_pretrained(folder, subfolder="vae", **part),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=dtype, local_files_only=True),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
        scheduler_config=json.loads((folder / "scheduler" / "scheduler_config.json").read_text()),
        source=str(source),
        files={file: file.parent.name for file in sorted(folder.glob("*/*.safetensors")) if file.parent.name in PARTS},
    )
    for module in (model.unet, model.vae, model.text_encoder):
        module.eval().requires_grad_(False)
    return model.to(device, dtype)


def _single_file_not_yet(path: Path) -> Path:
    if not path.exists():
        raise FileError(f"{path} does not exist; give a diffusers folder or a checkpoint file.")
    raise FileError(f"{path} is a single file; this version loads diffusers folders and hub ids only.")


def _vae(path: Path, dtype: torch.dtype) -> AutoencoderKL:
    if not (path / "config.json").exists():
        raise FileError(f"vae: {path} is not a diffusers VAE folder (no config.json in it).")
    return AutoencoderKL.from_pretrained(path, torch_dtype=dtype, local_files_only=True)


def _variant(folder: Path) -> dict[str, Any]:
    """Return the file variant to ask for where only half-precision files are there."""
    unet = folder / "unet"
    plain = list(unet.glob("diffusion_pytorch_model*.safetensors"))
    if plain and all(".fp16." in file.name for file in plain):
        return {"variant": "fp16"}
    return {}


def _check_folder(folder: Path) -> None:
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise FileError(
            f"{folder} is not a Stable Diffusion model in diffusers' layout: it has no {', '.join(missing)}. Give the "
            f"folder that holds model_index.json."
        )
    config = json.loads((folder / "unet" / "config.json").read_text())
    if (name := config.get("_class_name", "UNet2DConditionModel")) != "UNet2DConditionModel":
        raise MismatchError(f"{folder}/unet is a {name}; motion plugs into a UNet2DConditionModel.")


def _from_hub(name: str) -> Path:
    wanted = [f"{part}/*" for part in PARTS] + ["model_index.json"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise FileError(
            f"{name!r} is neither a file nor a folder here, and no model of that name could be fetched "
            f"({type(error).__name__}). Check the path, or fetch the model once while online."
        ) from error
