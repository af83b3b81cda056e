"""What the tensors of a file are for, told by their names and shapes alone.

Stillmotion loads motion modules, MotionLoRAs and domain adapters; it recognises the other files that live beside them,
so that a wrong one can be named.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from stillmotion.checkpoints.control_keys import find_control
from stillmotion.checkpoints.learnt_words import WordVectors, custom_words, is_custom_diffusion, textual_inversion
from stillmotion.checkpoints.lora_keys import LoraTensors, find_lora
from stillmotion.checkpoints.motion_keys import MotionTensors, find_motion

KINDS: dict[str, str] = {
    "motion_module": "a motion module",
    "motion_lora": "a MotionLoRA",
    "domain_adapter": "a domain adapter",
    "lora": "a LoRA of images",
    "sd_checkpoint": "a Stable Diffusion checkpoint",
    "pipeline": "a folder of a diffusers pipeline",
    "unet": "the UNet of an image model",
    "vae": "a VAE",
    "text_encoder": "a text encoder",
    "image_encoder": "an image encoder",
    "textual_inversion": "a textual inversion",
    "custom_diffusion": "Custom Diffusion weights",
    "controlnet": "a ControlNet",
    "t2i_adapter": "a T2I-Adapter",
    "sparse_control": "a SparseCtrl encoder",
    "ip_adapter": "an IP-Adapter",
    "unknown": "a file of weights that Stillmotion does not know",
}
"""Every kind of file, with its name in a sentence."""

TEXT_WIDTHS = {768: "sd15", 1024: "sd2", 2048: "sdxl", 1280: "sdxl_refiner"}
"""Width of the text features that a UNet attends to, by family."""

_TEXT_KEY = re.compile(r"attn2[._]to_k(?:\.weight|.*(?:\.lora_A|down).*\.weight)$")
_CUSTOM_KEY = re.compile(r"to_k(?:_custom_diffusion)?\.weight(?:\.v)?$")


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """What a file is."""

    kind: str
    """One of `KINDS`."""

    variant: str | None = None
    """The family of an image model's file ("sd15", "sdxl"), or the kind of a SparseCtrl encoder ("rgb", "scribble")."""

    dialect: str | None = None
    """Whose names the tensors bear."""

    note: str = ""
    """What a person should know about it."""

    motion: MotionTensors | None = None
    """The motion module inside, if it is one."""

    lora: LoraTensors | None = None
    """The LoRA inside, if it is one."""

    words: WordVectors | None = None
    """The words that it teaches, if it does."""

    @property
    def all_spatial(self) -> bool:
        """Whether it is a LoRA that could be a domain adapter by the layers it changes."""
        return self.lora is not None and self.lora.all_spatial


def recognise(tensors: Mapping[str, Tensor]) -> Recognised:
    """Return what `tensors` are for; the tensors may lie on the `meta` device."""
    names = tensors.keys()
    for recogniser in (_control, _custom_diffusion, _lora_like, _motion_module):
        found = recogniser(tensors)
        if found:
            return found
    for test, found in _OTHERS:
        if test(names):
            family = found.variant or _family(tensors)
            return Recognised(kind=found.kind, variant=family, dialect=found.dialect, note=found.note)
    if words := textual_inversion(tensors, TEXT_WIDTHS):
        family = "sdxl" if words.is_sdxl else TEXT_WIDTHS.get(words.width)
        return Recognised(kind="textual_inversion", variant=family, words=words)
    few = ", ".join(sorted(names)[:3])
    return Recognised(kind="unknown", note=f"Its {len(names)} tensors begin with {few}.")


def _control(tensors: Mapping[str, Tensor]) -> Recognised | None:
    found = find_control(tensors, TEXT_WIDTHS)
    if found is None:
        return None
    return Recognised(kind=found.kind, variant=found.variant, dialect=found.dialect, note=found.note)


def _custom_diffusion(tensors: Mapping[str, Tensor]) -> Recognised | None:
    if not is_custom_diffusion(tensors):
        return None
    dialect = "diffusers" if any("_custom_diffusion." in name for name in tensors) else "original"
    family = next(
        (TEXT_WIDTHS.get(tensor.shape[-1]) for name, tensor in tensors.items() if _CUSTOM_KEY.search(name)), None
    )
    return Recognised(kind="custom_diffusion", dialect=dialect, variant=family, words=custom_words(tensors))


def _lora_like(tensors: Mapping[str, Tensor]) -> Recognised | None:
    """Return which LoRA the tensors are, if most of them are halves of one."""
    special = _unusual_lora(tensors)
    if special:
        return special
    lora = find_lora(tensors)
    if not lora.down and not lora.up:
        return None
    dialect = _lora_dialect(lora)
    if lora.motion_targets:
        return Recognised(kind="motion_lora", dialect=dialect, lora=lora)
    if lora.all_spatial and dialect in ("original", "diffusers"):
        return Recognised(kind="domain_adapter", dialect=dialect, lora=lora, variant=_family(tensors))
    note = "It changes the look of the image model."
    if lora.all_spatial:
        note += " If it is a domain adapter under these names, give it as one, or load it with expect=DomainAdapter."
    return Recognised(kind="lora", dialect=dialect, lora=lora, variant=_family(tensors), note=note)


UNREAD_KIN = {"dora": "a DoRA", "oft": "an OFT", "ia3": "an IA3"}
"""The kin of LoRA that is recognised and not read, by dialect."""


def _unusual_lora(tensors: Mapping[str, Tensor]) -> Recognised | None:
    """Return which kin of LoRA the tensors are: not, or not only, products of two matrices."""
    marks = {
        ".dora_scale": "DoRA",
        ".lora_magnitude_vector": "DoRA",
        ".oft_blocks": "OFT",
        ".oft_diag": "OFT",
        ".on_input": "IA3",
        ".hada_w1_a": "LoHa",
        ".lokr_w1": "LoKr",
    }
    for mark, name in marks.items():
        if any(mark in key for key in tensors):
            note = f"{name}, which {'is not read here' if name.lower() in UNREAD_KIN else 'changes the look of the image model'}."
            return Recognised(kind="lora", dialect=name.lower(), variant=_family(tensors), note=note)
    return None


def _lora_dialect(lora: LoraTensors) -> str:
    for dialect in ("motiondirector", "kohya", "peft", "diffusers", "original"):
        if dialect in lora.dialects:
            return dialect
    return "mixed"


def _motion_module(tensors: Mapping[str, Tensor]) -> Recognised | None:
    motion = find_motion(tensors)
    if not motion.tensors:
        return None
    others = {name.removeprefix("module.") for name in motion.others}
    special: tuple[str, str] | None = None
    if any(name.startswith("img_encoder.") for name in others):
        special = ("animatelcm_i2v", "AnimateLCM-I2V: a motion module with an image encoder of its own.")
    elif "conv_in.weight" in others and not any(".resnets." in name for name in others):
        special = ("pia", "PIA: a motion module for a UNet whose first layer takes a picture beside the latents.")
    elif any("pos_embed" in name and name.endswith(".positional_embedding") for name in motion.tensors):
        special = ("hellomeme", "HelloMeme's motion module.")
    elif any(".qkv_merge." in name for name in motion.tensors):
        special = ("cameractrl", "CameraCtrl's layers for a motion module.")
    if special:
        return Recognised(
            kind="motion_module", variant=special[0], dialect=motion.dialect, note=special[1], motion=motion
        )
    note = f"A whole UNet of {len(others)} tensors is in the file too and is left out." if motion.inside_unet else ""
    variant = "hotshot_xl" if motion.dialect == "hotshot" else None
    return Recognised(kind="motion_module", variant=variant, dialect=motion.dialect, motion=motion, note=note)


def _starts(*prefixes: str) -> Callable[[Collection[str]], bool]:
    """Return a test: does any name begin with each of the prefixes?"""
    return lambda names: all(any(name.startswith(prefix) for name in names) for prefix in prefixes)


def _has(*parts: str) -> Callable[[Collection[str]], bool]:
    """Return a test: does any name contain each of the parts?"""
    return lambda names: all(any(part in name for name in names) for part in parts)


_OTHERS: list[tuple[Callable[[Collection[str]], bool], Recognised]] = [
    (
        _starts("model.diffusion_model.", "conditioner.embedders.1."),
        Recognised(kind="sd_checkpoint", dialect="compvis", variant="sdxl"),
    ),
    (
        _starts("model.diffusion_model.", "conditioner.embedders.0."),
        Recognised(kind="sd_checkpoint", dialect="compvis", variant="sdxl_refiner"),
    ),
    (
        _starts("model.diffusion_model.", "cond_stage_model.transformer."),
        Recognised(kind="sd_checkpoint", dialect="compvis", variant="sd15"),
    ),
    (
        _starts("model.diffusion_model.", "cond_stage_model.model."),
        Recognised(kind="sd_checkpoint", dialect="compvis", variant="sd2"),
    ),
    (
        _starts("model.diffusion_model.input_blocks."),
        Recognised(kind="unet", dialect="compvis", note="No text encoder is in the file."),
    ),
    (
        _has("double_blocks."),
        Recognised(kind="unknown", variant="flux", note="A model of the Flux family, which AnimateDiff does not move."),
    ),
    (
        _has("joint_blocks."),
        Recognised(kind="unknown", variant="sd3", note="A Stable Diffusion 3 model, which AnimateDiff does not move."),
    ),
    (_starts("conv_in.", "down_blocks.0.resnets.", "time_embedding."), Recognised(kind="unet", dialect="diffusers")),
    (_starts("input_blocks.", "middle_block."), Recognised(kind="unet", dialect="compvis")),
    (_starts("encoder.down_blocks.", "decoder.up_blocks."), Recognised(kind="vae", dialect="diffusers")),
    (_starts("encoder.down.", "decoder.up."), Recognised(kind="vae", dialect="compvis")),
    (_starts("first_stage_model."), Recognised(kind="vae", dialect="compvis")),
    (_starts("vision_model."), Recognised(kind="image_encoder", dialect="transformers")),
    (_has("text_model.embeddings.token_embedding."), Recognised(kind="text_encoder", dialect="transformers")),
    (_has("embeddings.token_embedding.", "encoder.layers."), Recognised(kind="text_encoder", dialect="transformers")),
]
"""Files that are recognised by names alone, in the order of the tests."""


def _family(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the family of an image model, from the width of the text that its cross-attention takes."""
    if any(name.startswith(("lora_te2_", "text_encoder_2.")) for name in tensors):
        return "sdxl"
    for name, tensor in tensors.items():
        if _TEXT_KEY.search(name) and tensor.ndim >= 2:
            return TEXT_WIDTHS.get(tensor.shape[1])
    return None
