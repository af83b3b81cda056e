"""Files into motion modules and adapters: any dialect in, one kind of object out."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TypeVar, overload

import torch
from torch import Tensor

from stillmotion.checkpoints.contents import Contents, open_contents
from stillmotion.checkpoints.identity import geometry_of, has_positions, identify, known_variant, own_norm
from stillmotion.checkpoints.lora_keys import LoraTensors
from stillmotion.checkpoints.motion_keys import MotionTensors
from stillmotion.checkpoints.recognition import KINDS, Recognised
from stillmotion.errors import ConfigError, FileError, MismatchError
from stillmotion.motion import VARIANTS, DomainAdapter, MotionLora, MotionModule
from stillmotion.motion.module import sinusoidal_positions
from stillmotion.motion.reference_names import POSITIONS
from stillmotion.motion.variants import NormStatistics

Loaded = MotionModule | MotionLora | DomainAdapter
T = TypeVar("T", bound=Loaded)

KIND_OF: dict[type[Loaded], str] = {
    MotionModule: "motion_module",
    MotionLora: "motion_lora",
    DomainAdapter: "domain_adapter",
}
"""What is loaded, and the kind of file it comes from."""

_HOMES = {
    "motion_module": "load it with expect=MotionModule, or give it as the motion module",
    "motion_lora": "load it with expect=MotionLora, or give it among the MotionLoRAs",
    "domain_adapter": "load it with expect=DomainAdapter, or give it as the domain adapter",
    "lora": "give it among the LoRAs of the image model",
    "sd_checkpoint": "give it as the image model",
    "pipeline": "give it as the image model",
    "vae": "give it as the VAE",
    "textual_inversion": "give it among the embeddings",
    "custom_diffusion": "give it as custom_diffusion",
    **dict.fromkeys(("controlnet", "t2i_adapter", "ip_adapter", "sparse_control"), "give it among the controls"),
}


@overload
def load(
    path: str | PathLike[str],
    *,
    expect: type[T],
    variant: str | None = None,
    motion_norm: NormStatistics | None = None,
    num_attention_heads: int | None = None,
) -> T: ...
@overload
def load(
    path: str | PathLike[str],
    *,
    expect: tuple[type, ...] | None = None,
    variant: str | None = None,
    motion_norm: NormStatistics | None = None,
    num_attention_heads: int | None = None,
) -> Loaded: ...
def load(
    path: str | PathLike[str],
    *,
    expect: type | tuple[type, ...] | None = None,
    variant: str | None = None,
    motion_norm: NormStatistics | None = None,
    num_attention_heads: int | None = None,
) -> Loaded:
    """Return the motion module, MotionLoRA or domain adapter in a file or folder, whatever its dialect.

    Its tensors are on the CPU, in the dtype of the file, copied: the file may go. A motion module is in eval mode and
    asks for no gradients; `requires_grad_()` makes it trainable.

    Args:
        path: A `.ckpt`, `.safetensors` or other file of weights, or a diffusers folder.
        expect: The type, or types, that the file must hold; by default any of the three. A LoRA of attention layers
            under diffusers' or kohya's names is taken for a domain adapter only where it is expected.
        variant: The motion module's variant, for files that do not tell ("v1", "v2", "v3").
        motion_norm: "across_frames" for modules of diffusers-based trainers, whose entrance norm pools over frames.
        num_attention_heads: Heads of the temporal attentions, which no tensor tells; by default what the file's
            metadata or config says, or 8, as every released module has.

    Raises:
        FileError: The file is missing, damaged, unsafe, of another kind, or has tensors that belong to nothing.
        MismatchError: The variant is needed or contradicts the file, or the heads do not divide the widths.
    """
    kinds = _kinds(expect)
    path = Path(path).expanduser()
    if (path / "model_index.json").is_file():
        raise FileError(_wrong_kind(path, Recognised(kind="pipeline"), kinds))
    contents = open_contents(path, values=True)
    loaded = build(contents, kinds, variant=variant, motion_norm=motion_norm, num_attention_heads=num_attention_heads)
    if isinstance(loaded, MotionModule):
        # What the file lends would change, or fail, with the file.
        loaded.load_state_dict({name: tensor.clone() for name, tensor in loaded.state_dict().items()}, assign=True)
        return loaded.requires_grad_(False)
    weights = {target: (down.clone(), up.clone()) for target, (down, up) in loaded.weights.items()}
    return type(loaded)(weights=weights, name=loaded.name, metadata=loaded.metadata)


def build(
    contents: Contents,
    kinds: tuple[str, ...] = tuple(KIND_OF.values()),
    *,
    variant: str | None = None,
    motion_norm: NormStatistics | None = None,
    num_attention_heads: int | None = None,
) -> Loaded:
    """Return what `load` does, from an opened file, whose memory it shares."""
    found = identify(contents)
    if found.kind == "lora" and kinds == ("domain_adapter",) and found.all_spatial:
        found = replace(found, kind="domain_adapter")
    if found.kind not in kinds:
        raise FileError(_wrong_kind(contents.path, found, kinds))
    if found.lora is not None:
        return _adapter(contents, found.kind, found.lora)
    name = known_variant(contents, found, variant)
    assert found.motion is not None
    _require_only_motion(contents, found.motion)
    known = {} if num_attention_heads is None else {"num_attention_heads": num_attention_heads}
    if not has_positions(contents, found):
        known["max_frames"] = VARIANTS[name].max_frames
    geometry = geometry_of(contents, found, **known)
    if geometry.has_mid_block != VARIANTS[name].has_mid_block:
        has = "has" if geometry.has_mid_block else "lacks"
        raise MismatchError(
            f"{contents.path} {has} a mid block, so it is no {name} module; leave variant out, or give the right one."
        )
    with torch.device("meta"):
        module = MotionModule(geometry, VARIANTS[name], motion_norm=motion_norm or own_norm(contents))
    _fill(module, found.motion.tensors, contents.path)
    return module.eval().requires_grad_(False)


def _kinds(expect: type | tuple[type, ...] | None) -> tuple[str, ...]:
    """Return the kinds of file that hold the expected types."""
    if expect is None:
        return tuple(KIND_OF.values())
    types = expect if isinstance(expect, tuple) else (expect,)
    kinds = tuple(kind for known, kind in KIND_OF.items() if issubclass(known, types))
    if not kinds:
        names = ", ".join(known.__name__ for known in KIND_OF)
        raise ConfigError(f"expect: {', '.join(map(repr, types))} is in no file; expected is one of {names}.")
    return kinds


def _wrong_kind(path: Path, found: Recognised, kinds: tuple[str, ...]) -> str:
    """Return the sentence that says what a file is, where it belongs, and what was wanted."""
    rank = f" (rank {found.lora.rank})" if found.lora is not None and found.lora.rank else ""
    wanted = " or ".join(KINDS[kind] for kind in kinds)
    advice = f"; {_HOMES[found.kind]}" if found.kind in _HOMES else ""
    note = f" {found.note}" if found.note else ""
    return f"{path} is {KINDS[found.kind]}{rank}, not {wanted}{advice}.{note}"


def _require_only_motion(contents: Contents, motion: MotionTensors) -> None:
    """Raise `FileError` if tensors stand twice with different values, or beside the module without a UNet around it."""
    if motion.conflicts:
        raise FileError(
            f"{contents.path} holds two values for one tensor: {_few(motion.conflicts)}. Motion modules have one "
            "positional encoding per block; keep one copy of each tensor."
        )
    if motion.others and not motion.inside_unet:
        raise FileError(
            f"{contents.path} holds a motion module and {len(motion.others)} tensors that belong to nothing known: "
            f"{_few(motion.others)}."
        )


def _fill(module: MotionModule, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Put the tensors into a module on the `meta` device, missing positional encodings by the formula."""
    wanted = module.state_dict()
    complete = dict(tensors)
    if not any(name.endswith(POSITIONS) for name in tensors):
        dtype = next(tensor.dtype for name, tensor in tensors.items() if name.endswith("proj_in.weight"))
        for name in (name for name in wanted if name.endswith(POSITIONS)):
            _, length, channels = wanted[name].shape
            complete[name] = sinusoidal_positions(length, channels).to(dtype)
    missing, surplus = wanted.keys() - complete.keys(), complete.keys() - wanted.keys()
    if missing or surplus:
        lacks = f"lacks {len(missing)} of its tensors ({_few(missing)})" if missing else ""
        spare = f"has {len(surplus)} that belong to nothing ({_few(surplus)})" if surplus else ""
        parts = " and ".join(part for part in (lacks, spare) if part)
        raise FileError(f"{path} is a motion module that {parts}; it is damaged, or of a kind that is not known here.")
    for name, tensor in complete.items():
        if tensor.shape != wanted[name].shape:
            shapes = f"{tuple(tensor.shape)}, where the rest of the file asks for {tuple(wanted[name].shape)}"
            raise FileError(f"{path} does not fit together: {name} has the shape {shapes}.")
        if not tensor.is_floating_point():
            raise FileError(f"{path} is quantised: {name} holds {tensor.dtype}; expected are floating-point weights.")
    module.load_state_dict(complete, strict=True, assign=True)


def _adapter(contents: Contents, kind: str, lora: LoraTensors) -> MotionLora | DomainAdapter:
    """Return the adapter in a file, every alpha folded in."""
    path = contents.path
    if lora.unpaired:
        raise FileError(f"{path} has half a pair of matrices for {_few(lora.unpaired)}; it is damaged or incomplete.")
    fitting = {*lora.motion_targets, *lora.spatial_targets}
    surplus = [*lora.others, *(target for target in lora.down if target not in fitting)]
    if surplus:
        raise FileError(f"{path} has {len(surplus)} tensors that belong to no layer it could change: {_few(surplus)}.")
    weights = {target: _pair(path, lora, target) for target in lora.down}
    loaded = MotionLora if kind == "motion_lora" else DomainAdapter
    return loaded(weights=weights, name=path.name, metadata=dict(contents.metadata))


def _pair(path: Path, lora: LoraTensors, target: str) -> tuple[Tensor, Tensor]:
    """Return both matrices of one layer, alpha / rank folded into the second.

    Folding keeps the file's dtype where that loses nothing, as for every power of two; otherwise both come in float32.
    """
    down, up, alpha = lora.down[target], lora.up[target], lora.alpha.get(target)
    if down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1]:
        shapes = f"{tuple(down.shape)} and {tuple(up.shape)}"
        raise FileError(f"{path}: the matrices for {target} have the shapes {shapes}, which make no pair.")
    if alpha is None or float(alpha) == down.shape[0]:
        return down, up
    exact = up.double() * (float(alpha) / down.shape[0])
    if torch.equal(exact.to(up.dtype).double(), exact):
        return down, exact.to(up.dtype)
    return down.float(), exact.float()


def _few(names: Collection[str]) -> str:
    listed = sorted(names)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + more
