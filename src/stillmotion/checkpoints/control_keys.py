"""Which control of an image model the tensors of a file are: told by their names and shapes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from stillmotion.checkpoints.motion_keys import find_motion

_WRAPPERS = ("module.", "controlnet.", "control_model.")
"""Prefixes that trainers and wrappers put before every name."""

_TEXT_ENDINGS = ("attn2.to_k.weight", ".to_k_ip.weight")
"""Ends of the names of layers that take features of the text, or stand beside those that do."""

_T2I_ADAPTER_ENTRANCES = {64: "sd15", 192: "sd15", 256: "sdxl", 768: "sdxl"}
"""Families of T2I-Adapters by the channels of their first layer, which sees squares of 8 or 16 pixels at once."""


@dataclass(frozen=True, kw_only=True)
class ControlKeys:
    """A control found in a file."""

    kind: str
    """One of `recognition.KINDS`."""
    variant: str | None = None
    """The family of image models that it is for; the style of a SparseCtrl encoder."""
    dialect: str | None = None
    """Whose names the tensors bear."""
    note: str = ""
    """What a person should know about it."""


def find_control(tensors: Mapping[str, Tensor], families: Mapping[int, str]) -> ControlKeys | None:
    """Return the control among `tensors`; None where there is none. `families` are by the width of the text features."""
    plain = {_unwrapped(name): tensor for name, tensor in tensors.items()}
    widths = (tensor.shape[1] for name, tensor in plain.items() if name.endswith(_TEXT_ENDINGS) and tensor.ndim == 2)
    family = families.get(next(widths, 0))

    if _starts(plain, "image_proj.") and _starts(plain, "ip_adapter."):
        return ControlKeys(kind="ip_adapter", variant=family, note=_ip_adapter_note(plain))
    if _starts(plain, "controlnet_cond_embedding.") and (motion := find_motion(plain)).tensors:
        style = "rgb" if "controlnet_cond_embedding.weight" in plain else "scribble"
        note = "It controls single frames of a clip; it is no motion module, though it has one for itself."
        return ControlKeys(kind="sparse_control", variant=style, dialect=motion.dialect, note=note)
    return _controlnet(plain, tensors, family) or _t2i_adapter(plain)


def _controlnet(plain: Mapping[str, Tensor], tensors: Mapping[str, Tensor], family: str | None) -> ControlKeys | None:
    if _starts(plain, "lllite_unet"):
        note = "ControlNet-LLLite, which is not steered with here."
        return ControlKeys(kind="controlnet", variant="sdxl", dialect="kohya", note=note)
    if _starts(plain, "lora_controlnet"):
        return ControlKeys(kind="controlnet", dialect="compvis", note="A Control-LoRA, which is not steered with here.")
    if _starts(plain, "input_hint_block.") or _starts(plain, "zero_convs.") or _starts(tensors, "control_model."):
        note = "It is the difference to Stable Diffusion, not a whole ControlNet." if "difference" in plain else ""
        return ControlKeys(kind="controlnet", variant=family, dialect="compvis", note=note)
    if _starts(plain, "controlnet_cond_embedding.") or _starts(plain, "controlnet_down_blocks."):
        return ControlKeys(kind="controlnet", variant=family, dialect="diffusers")
    return None


def _t2i_adapter(tensors: Mapping[str, Tensor]) -> ControlKeys | None:
    plain = {name.removeprefix("adapter."): tensor for name, tensor in tensors.items()}
    light = "body.0.in_conv.weight" in plain and any(name.endswith(".out_conv.weight") for name in plain)
    full = "conv_in.weight" in plain and any(name.startswith("body.0.") for name in plain)
    if not light and not full:
        return None
    entrance = plain["body.0.in_conv.weight" if light else "conv_in.weight"]
    family = _T2I_ADAPTER_ENTRANCES.get(entrance.shape[1]) if entrance.ndim == 4 else None
    dialect = "diffusers" if any(".resnets." in name for name in plain) else "original"
    return ControlKeys(kind="t2i_adapter", variant=family, dialect=dialect, note="A light one." if light else "")


def _ip_adapter_note(tensors: Mapping[str, Tensor]) -> str:
    if "image_proj.latents" in tensors and not any(".perceiver_resampler." in name for name in tensors):
        return "A plus adapter: it sees a picture's patches, and follows it more closely."
    if "image_proj.proj.weight" in tensors:
        return ""
    if "image_proj.proj.3.weight" in tensors:
        return "A full adapter: it sees all that CLIP does of a picture."
    return "It takes features of a face recogniser, and is not steered with here."


def _unwrapped(name: str) -> str:
    for prefix in _WRAPPERS:
        name = name.removeprefix(prefix)
    return name


def _starts(names: Iterable[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)
