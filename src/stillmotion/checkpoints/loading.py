"""Files into motion modules and adapters: any dialect in, one kind of object out."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TypeVar, overload

import torch
from torch import Tensor

from stillmotion.checkpoints.contents import Contents, open_contents
from stillmotion.checkpoints.inspection import geometry_of, variant_of
from stillmotion.checkpoints.lora_keys import LoraTensors
from stillmotion.checkpoints.recognition import KINDS, Recognised, recognise
from stillmotion.errors import FileError, MismatchError
from stillmotion.motion import VARIANTS, DomainAdapter, LoraAdapter, MotionLora, MotionModule
from stillmotion.motion.module import sinusoidal_positions
from stillmotion.motion.variants import NormStatistics

Loaded = MotionModule | MotionLora | DomainAdapter
T = TypeVar("T", bound=Loaded)

KIND_OF: dict[type, str] = {MotionModule: "motion_module", MotionLora: "motion_lora", DomainAdapter: "domain_adapter"}


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

    Args:
        path: A `.ckpt`, `.safetensors` or other file of weights, or a diffusers folder.
        expect: The type, or types, that the file must hold; by default any of the three.
        variant: The motion module's variant, for files that do not tell ("v1", "v2", "v3").
        motion_norm: `across_frames` for modules of diffusers-based trainers, whose entrance norm pools over frames.
        num_attention_heads: Heads of the temporal attentions, which no tensor tells; 8 by default, as everywhere.

    Raises:
        FileError: The file is missing, damaged, unsafe, of another kind, or has tensors that belong to nothing.
        MismatchError: The variant is unknown or needed.
    """
    path = Path(path).expanduser()
    contents = open_contents(path, values=True)
    found = recognise(contents.tensors)
    kinds = tuple(KIND_OF[kind] for kind in _as_tuple(expect))
    if found.kind == "lora" and found.lora is not None and kinds == ("domain_adapter",) and _all_spatial(found.lora):
        found = Recognised(kind="domain_adapter", dialect=found.dialect, lora=found.lora)
    if found.kind not in kinds:
        raise FileError(_wrong_kind(path, found, kinds))
    if found.kind == "motion_module":
        return _motion_module(contents, found, variant, motion_norm, num_attention_heads)
    return _adapter(path, contents, found)


def _as_tuple(expect: type | tuple[type, ...] | None) -> tuple[type, ...]:
    if expect is None:
        return tuple(KIND_OF)
    return expect if isinstance(expect, tuple) else (expect,)


def _wrong_kind(path: Path, found: Recognised, kinds: tuple[str, ...]) -> str:
    rank = f" (rank {found.lora.rank})" if found.lora is not None and found.lora.rank else ""
    wanted = " or ".join(KINDS[kind] for kind in kinds)
    homes = {
        "motion_module": "give it where a motion module is asked for",
        "motion_lora": "add it to a plugged motion module",
        "domain_adapter": "add it to a plugged UNet, or give it as domain_adapter",
        "lora": "give it among the LoRAs of the image model",
        "sd_checkpoint": "give it as the image model",
        "vae": "give it as the VAE",
    }
    advice = f"; {homes[found.kind]}" if found.kind in homes else ""
    note = f" {found.note}" if found.note else ""
    return f"{path} is {KINDS.get(found.kind, found.kind)}{rank}, not {wanted}{advice}.{note}"


def _motion_module(
    contents: Contents,
    found: Recognised,
    variant: str | None,
    motion_norm: NormStatistics | None,
    num_attention_heads: int | None,
) -> MotionModule:
    path = contents.path
    if found.motion is None or (found.variant and found.variant not in VARIANTS):
        raise FileError(f"{path} is a motion module of a kind that is not loaded here. {found.note}")
    if found.motion.conflicts:
        raise FileError(f"{path} holds two values for one tensor: {_few(found.motion.conflicts)}.")
    told, note = variant_of(contents, found)
    name = variant or told
    if name is None:
        raise MismatchError(f"{path}: {note}")
    if name not in VARIANTS:
        raise MismatchError(f"{path}: variant {name!r} is unknown; expected one of {', '.join(VARIANTS)}.")
    known = _known(contents, num_attention_heads)
    if not found.motion.has_positions:
        known["max_frames"] = int(contents.config.get("motion_max_seq_length", VARIANTS[name].max_frames))
    with torch.device("meta"):
        module = MotionModule(geometry_of(found, **known), VARIANTS[name], motion_norm=_norm(contents, motion_norm))
    if module.geometry.has_mid_block != VARIANTS[name].has_mid_block:
        has = "has" if module.geometry.has_mid_block else "lacks"
        raise MismatchError(f"{path} {has} a mid block, so it is no {name} module; leave `variant` out, or give the right one.")
    _fill(module, found.motion.tensors, path)
    return module.eval().requires_grad_(False)


def _known(contents: Contents, num_attention_heads: int | None) -> dict[str, int]:
    """Return what of the geometry no tensor tells: said by the caller, by the file itself, by its config."""
    known: dict[str, int] = {}
    geometry = contents.own.get("geometry", {})
    names = {"num_attention_heads": "motion_num_attention_heads", "norm_num_groups": "motion_norm_num_groups"}
    for name, in_config in names.items():
        value = geometry.get(name, contents.config.get(in_config))
        if isinstance(value, int):
            known[name] = value
    if num_attention_heads is not None:
        known["num_attention_heads"] = num_attention_heads
    return known


def _norm(contents: Contents, motion_norm: NormStatistics | None) -> NormStatistics | None:
    return motion_norm or contents.own.get("motion_norm")


def _fill(module: MotionModule, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Put the tensors into a module on the `meta` device, a missing positional encoding by the formula."""
    wanted = module.state_dict()
    complete = dict(tensors)
    dtype = next(t.dtype for name, t in tensors.items() if name.endswith("proj_in.weight"))
    for name in wanted:
        if name.endswith(".pos_embed.pe") and name not in complete:
            _, length, channels = wanted[name].shape
            complete[name] = sinusoidal_positions(length, channels).to(dtype)
    missing, surplus = wanted.keys() - complete.keys(), complete.keys() - wanted.keys()
    if missing or surplus:
        lacks = f"lacks {len(missing)} tensors ({_few(missing)})" if missing else ""
        spare = f"has {len(surplus)} that belong to nothing ({_few(surplus)})" if surplus else ""
        raise FileError(f"{path} {' and '.join(part for part in (lacks, spare) if part)}; it is damaged or incomplete.")
    for name, tensor in complete.items():
        if name.endswith(".pos_embed.pe") and tensor.shape[1] > wanted[name].shape[1]:
            complete[name] = tensor[:, : wanted[name].shape[1]]
        elif tensor.shape != wanted[name].shape:
            raise FileError(f"{path}: {name} has shape {tuple(tensor.shape)}, expected {tuple(wanted[name].shape)}.")
    module.load_state_dict({name: t.contiguous() for name, t in complete.items()}, strict=True, assign=True)


def _adapter(path: Path, contents: Contents, found: Recognised) -> MotionLora | DomainAdapter:
    lora = found.lora
    assert lora is not None
    if lora.unpaired:
        raise FileError(f"{path} has half a pair for {_few(lora.unpaired)}; it is damaged or incomplete.")
    kind: type[LoraAdapter] = MotionLora if found.kind == "motion_lora" else DomainAdapter
    fitting = set(lora.motion_targets) | set(lora.spatial_targets)
    surplus = [*lora.others, *(target for target in lora.down if target not in fitting)]
    if surplus:
        raise FileError(f"{path} has {len(surplus)} tensors that belong to no layer that moves: {_few(surplus)}.")
    weights = {target: (down, _scaled(lora, target)) for target, down in lora.down.items()}
    metadata = {name: str(value) for name, value in contents.metadata.items()}
    return kind(weights=weights, name=path.name, metadata=metadata)  # type: ignore[return-value]  # one of the two


def _scaled(lora: LoraTensors, target: str) -> Tensor:
    """Return the second matrix with alpha / rank folded in, where the file stores an alpha."""
    up, alpha = lora.up[target], lora.alpha.get(target)
    if alpha is None:
        return up
    scale = float(alpha) / lora.down[target].shape[0]
    return up if scale == 1 else (up.float() * scale).to(up.dtype)


def _all_spatial(lora: LoraTensors) -> bool:
    return len(lora.spatial_targets) == len(lora.down) and not lora.others


def _few(names: object) -> str:
    listed = sorted(names)  # type: ignore[call-overload]  # any collection of names
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return ", ".join(listed[:3]) + more
