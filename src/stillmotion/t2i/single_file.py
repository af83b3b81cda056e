"""An image model out of one file: Stable Diffusion 1.x or XL as trainers and web sites pass it around, without network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from stillmotion.errors import FileError, MismatchError
from stillmotion.t2i.filling import filled
from stillmotion.t2i.geometry import CONFIGS, XL_CONFIGS, shipped, text_encoder_config, unet_config, vae_config
from stillmotion.t2i.models import T2I
from stillmotion.t2i.open_clip_names import from_open_clip
from stillmotion.t2i.original_names import (
    TEXT_PREFIX,
    UNET_PREFIX,
    VAE_PREFIX,
    XL_TEXT_PREFIXES,
    unet_layers,
    vae_layers,
)
from stillmotion.t2i.reading import read_tensors

PARTS = {"unet": UNET_PREFIX, "text_encoder": TEXT_PREFIX, "vae": VAE_PREFIX}
"""The parts of a model and where they lie in its file."""

XL_PARTS = {
    "unet": UNET_PREFIX,
    "text_encoder": XL_TEXT_PREFIXES[0],
    "text_encoder_2": XL_TEXT_PREFIXES[1],
    "vae": VAE_PREFIX,
}
"""The same for Stable Diffusion XL."""

UNUSED = {
    "model_ema.": "averaged weights",
    "safety_checker.": "the safety checker",
    "cond_stage_model.": "CLIP's projection",
    "control_model.": "a ControlNet",
    VAE_PREFIX: "the model's own VAE",
}
"""What else a file may hold, and why it is left alone: none of it makes pictures here."""

OTHER_FAMILIES = {
    "conditioner.embedders.0.model.": "Stable Diffusion XL refiner",
    "cond_stage_model.model.": "Stable Diffusion 2",
    "model.diffusion_model.joint_blocks.": "Stable Diffusion 3",
    "model.diffusion_model.double_blocks.": "Flux",
}
"""Models of another kind, by how some of their names begin."""

OTHER_FILES = {
    "motion_modules.": "a motion module or a MotionLoRA; give it as motion or motion_loras",
    "lora_": "a LoRA; give it as one of loras, and as model the model that it was made for",
    "string_to_param": "a textual inversion; give it as one of embeddings",
    "emb_params": "a textual inversion; give it as one of embeddings",
    "control_model.": "a ControlNet",
    "controlnet_": "a ControlNet",
    "encoder.down": "a VAE; give it as vae",
    "first_stage_model.": "a VAE; give it as vae",
    "model.diffusion_model.": "a UNet without a text encoder",
    "input_blocks.": "a bare UNet, without a text encoder",
    "down_blocks.": "a bare UNet, without a text encoder",
    "text_model.": "a text encoder, without a UNet",
}
"""What a file is that is no model, by a piece of its names; the first that is found says it."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """The weights of one part of a model, as a file has them."""

    tensors: Mapping[str, Tensor]
    """Its weights, without prefix."""
    where: str
    """The file and the part, for messages."""


def load_single_file(path: Path, vae: AutoencoderKL | None) -> T2I:
    """Return the Stable Diffusion 1.x or XL model of a file, its weights as stored; `vae` stands in for its own.

    Raises:
        FileError: The file is damaged, unsafe, or something else than a Stable Diffusion checkpoint.
        MismatchError: It is of another family, has no VAE and none is given, or has weights that fit nowhere.
    """
    tensors, _ = read_tensors(path)
    _require_model(tensors, path)
    wide = _is_xl(tensors)
    parts = XL_PARTS if wide else PARTS
    configs = XL_CONFIGS if wide else CONFIGS
    own_vae = part_of(tensors, VAE_PREFIX, f"{path}: the VAE")
    if vae is None and not own_vae.tensors:
        raise MismatchError(f"{path} has no VAE; give one as vae, for example vae-ft-mse-840000-ema-pruned.ckpt.")
    unet = make_unet(part_of(tensors, UNET_PREFIX, f"{path}: the UNet"))
    text_encoder = make_text_encoder(part_of(tensors, parts["text_encoder"], f"{path}: the text encoder"))
    tokenizer = CLIPTokenizer.from_pretrained(str(CONFIGS / "tokenizer"), local_files_only=True)
    if text_encoder.config.vocab_size < len(tokenizer):
        raise MismatchError(
            f"{path}: its text encoder knows {text_encoder.config.vocab_size} tokens, CLIP has {len(tokenizer)}; convert "
            "the model to a diffusers folder with a tokenizer of its own."
        )
    return T2I(
        unet=unet,
        vae=make_vae(own_vae, configs) if vae is None else vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        **(_second_text_encoder(tensors, path) if wide else {}),
        scheduler_config=shipped("scheduler", "scheduler_config.json", configs)
        | {"prediction_type": _prediction(tensors, path)},
        source=str(path),
        files={path: "single file"},
        report=[_said(tensors, path, {part: parts[part] for part in parts if part != "vae" or vae is None})],
    )


def _is_xl(tensors: Mapping[str, Tensor]) -> bool:
    return any(name.startswith(XL_TEXT_PREFIXES[1]) for name in tensors)


def _second_text_encoder(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    """Return Stable Diffusion XL's second text encoder, and its tokenizer: CLIP's too, but texts are filled up by "!"."""
    part = part_of(tensors, XL_TEXT_PREFIXES[1], f"{path}: the second text encoder")
    named = Part(tensors=from_open_clip(part.tensors), where=part.where)
    filled_up = {"pad_token": "!"}
    tokenizer = CLIPTokenizer.from_pretrained(str(CONFIGS / "tokenizer"), local_files_only=True, **filled_up)
    return {"text_encoder_2": make_text_encoder(named, CLIPTextModelWithProjection), "tokenizer_2": tokenizer}


def part_of(tensors: Mapping[str, Tensor], prefix: str, where: str) -> Part:
    """Return the weights under a prefix, which is taken off."""
    found = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    return Part(tensors=found, where=where)


def make_unet(part: Part) -> UNet2DConditionModel:
    """Return the UNet of weights in original names."""
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(_config(unet_config, part))
    return _filled(unet, part, unet_layers(unet))


def make_vae(part: Part, configs: Path = CONFIGS) -> AutoencoderKL:
    """Return the VAE of weights in original names, or in diffusers' of any age; `configs` are those of its family."""
    renamed = {
        _today(name): value for name, value in part.tensors.items() if not name.startswith(("loss.", "model_ema."))
    }
    part = Part(tensors=renamed, where=part.where)
    with torch.device("meta"):
        vae = AutoencoderKL.from_config(_config(lambda tensors: vae_config(tensors, configs), part))
    original = any(name.startswith("encoder.down.") for name in renamed)
    return _filled(vae, part, vae_layers(vae) if original else {})


def make_text_encoder(part: Part, kind: Any = CLIPTextModel) -> Any:
    """Return the CLIP text encoder of weights in transformers' names, with "text_model." or without."""
    plain = {name.removeprefix("text_model."): value for name, value in part.tensors.items()}
    plain.pop("embeddings.position_ids", None)  # a count from 0, which some programs store
    part = Part(tensors=plain, where=part.where)
    with torch.device("meta"):
        encoder = kind(CLIPTextConfig.from_dict(_config(text_encoder_config, part)))
    names = {layer: layer.removeprefix("text_model.") for layer, _ in encoder.named_modules()}
    filled = _filled(encoder, part, names)
    for module in encoder.modules():
        if isinstance(positions := getattr(module, "position_ids", None), Tensor):
            module.position_ids = torch.arange(positions.shape[-1]).expand(1, -1)
    return filled


def _config(read: Callable[[Mapping[str, Tensor]], dict[str, Any]], part: Part) -> dict[str, Any]:
    try:
        return read(part.tensors)
    except KeyError as error:
        raise MismatchError(
            f"{part.where} has no weight {error.args[0]!r}: the file is not whole, or of another family."
        ) from error


def _filled(model: Any, part: Part, names: Mapping[str, str]) -> Any:
    """Give a model its weights, those of layer `x` being called `names[x]` in the file; every weight must be used."""
    return filled(model, part.tensors, names, part.where, "it is not whole, or of another family")


def _today(name: str) -> str:
    """Return a VAE weight's name with the attention's layers called as today: diffusers renamed them in 2023."""
    if ".attentions." not in name:
        return name
    layer, _, leaf = name.rpartition(".")
    head, _, last = layer.rpartition(".")
    now = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}.get(last, last)
    return f"{head}.{now}.{leaf}"


def _require_model(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise unless the file holds a UNet and the text encoders of Stable Diffusion 1.x or XL; say what it holds instead."""
    for start, family in OTHER_FAMILIES.items():
        if any(name.startswith(start) for name in tensors):
            raise MismatchError(
                f"{path} is a {family} checkpoint; this version loads those of Stable Diffusion 1.x and XL."
            )
    for texts in ((TEXT_PREFIX,), XL_TEXT_PREFIXES):
        if all(any(name.startswith(start) for name in tensors) for start in (UNET_PREFIX, *texts)):
            return
    what = next((what for piece, what in OTHER_FILES.items() if any(piece in name for name in tensors)), None)
    if what:
        raise FileError(f"{path} is no Stable Diffusion checkpoint, but {what}.")
    raise FileError(f"{path} is no Stable Diffusion checkpoint; its {len(tensors)} tensors begin with {min(tensors)}.")


def _prediction(tensors: Mapping[str, Tensor], path: Path) -> str:
    """Return what the UNet predicts, which weights do not show: a mark in the file, or the config beside it, says v."""
    beside = path.with_suffix(".yaml")
    if beside.is_file():
        try:
            config = yaml.safe_load(beside.read_text(encoding="utf-8"))
            if config["model"]["params"].get("parameterization") == "v":
                return "v_prediction"
        except (yaml.YAMLError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
            raise FileError(
                f"{beside}, the config beside {path.name}, cannot be read; mend it or remove it."
            ) from error
    return "v_prediction" if "v_pred" in tensors else "epsilon"


def _said(tensors: Mapping[str, Tensor], path: Path, parts: Mapping[str, str]) -> str:
    """Return which of a file's tensors were applied, and which were left alone and why."""
    used = {part: sum(name.startswith(prefix) for name in tensors) for part, prefix in parts.items()}
    rest = [name for name in tensors if not name.startswith(tuple(parts.values()))]
    counts: dict[str, int] = {}
    for name in rest:
        why = next((why for start, why in UNUSED.items() if name.startswith(start)), "training state")
        counts[why] = counts.get(why, 0) + 1
    said = f"{path.name}: {sum(used.values())} tensors applied ({', '.join(f'{p} {n}' for p, n in used.items())})"
    return said + (f"; skipped {', '.join(f'{n} ({why})' for why, n in counts.items())}" if counts else "")
