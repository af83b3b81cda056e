"""What a file is and what it needs to be built: kind, variant and geometry, from its tensors and its own words.

What Stillmotion wrote into a file is authoritative. Otherwise a motion module's variant follows from its shape, as in
every tool of the field: a mid block means v2, three levels mean SDXL, 24 positions v1, 32 v3, a mid block without
positions AnimateLCM. AnimateDiff-Lightning is built as v2, and its file's name alone says what it is and for how many steps;
so does AnimateLCM's where diffusers has given it positions.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from stillmotion.checkpoints.contents import WEIGHT_NAMES, Contents
from stillmotion.checkpoints.lora_keys import LoraTensors
from stillmotion.checkpoints.recognition import KINDS, Recognised, recognise
from stillmotion.errors import FileError, MismatchError
from stillmotion.motion import ARCHITECTURES, VARIANTS, MotionGeometry
from stillmotion.motion.variants import NormStatistics

V1_POSITIONS, V3_POSITIONS = 24, 32

NO_POSITIONS = (
    "It stores no positional encoding, by which v1 and v3 are told apart; say which it is by variant, for instance v1 "
    "for a file that the reference's trainer wrote with its released settings."
)
LCM_WITHOUT_POSITIONS = (
    "It stores no positional encoding, as AnimateLCM does; positions come from the formula. If it is a v2 module of the "
    "reference's trainer, say so by variant."
)
TOLD_BY_NAME = "Its tensors are those of a v2 module; that it is {variant} its name says."
OTHER_POSITIONS = (
    "Its {count} positions are those of no released module; it is taken for v3, whose norms are all per frame. If it "
    "was trained as v1, say so by variant."
)
FOR_V2 = "It was made for a v2 module: it moves the mid block."
ALSO_SPATIAL = "It changes {count} layers of the image UNet, too."

_LIGHTNING = re.compile(r"lightning.*?(?<!\d)([1248])[-_ ]?step", re.IGNORECASE)
_LCM = re.compile(r"animate[-_ ]?lcm", re.IGNORECASE)
_UNTOLD = {"num_attention_heads": "motion_num_attention_heads", "norm_num_groups": "motion_norm_num_groups"}


def identify(contents: Contents) -> Recognised:
    """Return what a file is.

    Raises:
        FileError: Stillmotion wrote that it is one thing, and its tensors are another.
    """
    found = recognise(contents.tensors)
    told = contents.own.get("kind", found.kind)
    if told == found.kind:
        return found
    if told == "domain_adapter" and found.kind == "lora" and found.all_spatial:
        return replace(found, kind=told, note="")
    raise FileError(
        f"{contents.path} says that it is {KINDS.get(told, repr(told))}, but holds {KINDS[found.kind]}; fetch it again."
    )


def variant_of(contents: Contents, found: Recognised) -> tuple[str | None, str]:
    """Return a file's variant, None where nothing tells, and a note for the person who has to know.

    Raises:
        FileError: It holds part of a motion module only.
    """
    if contents.own.get("variant"):
        return str(contents.own["variant"]), ""
    if found.kind == "motion_lora" and found.lora is not None:
        return _variant_of_lora(found.lora)
    if found.kind != "motion_module" or found.variant or found.motion is None:
        return found.variant, ""
    return _variant_of_shape(contents, found)


def _variant_of_lora(lora: LoraTensors) -> tuple[str | None, str]:
    mid = any(target.startswith("mid_block.motion_modules.") for target in lora.down)
    spatial = len(lora.spatial_targets)
    note = f"{FOR_V2 if mid else ''} {ALSO_SPATIAL.format(count=spatial) if spatial else ''}".strip()
    return "v2" if mid else None, note


def _variant_of_shape(contents: Contents, found: Recognised) -> tuple[str | None, str]:
    geometry = shape_of(contents, found)
    positions = geometry.max_frames if has_positions(contents, found) else None
    if len(geometry.block_out_channels) == 3:
        return "sdxl_beta", ""
    if geometry.has_mid_block:
        if variant := _variant_of_name(contents):
            return variant, TOLD_BY_NAME.format(variant=variant) if positions else ""
        return ("v2", "") if positions else ("animate_lcm", LCM_WITHOUT_POSITIONS)
    if positions is None:
        return None, NO_POSITIONS
    note = "" if positions in (V1_POSITIONS, V3_POSITIONS) else OTHER_POSITIONS.format(count=positions)
    return "v1" if positions == V1_POSITIONS else "v3", note


def _variant_of_name(contents: Contents) -> str | None:
    """Return the variant that the name of a file, or of a folder with general names inside, says; v2 has two kin."""
    path = contents.path
    name = (path.parent if path.name in WEIGHT_NAMES else path).absolute().name
    if steps := _LIGHTNING.search(name):
        return f"lightning_{steps[1]}step"
    return "animate_lcm" if _LCM.search(name) else None


def has_positions(contents: Contents, found: Recognised) -> bool:
    """Return whether a motion module's file says how many positions it has, in tensors or in a config."""
    stored = found.motion is not None and found.motion.has_positions
    return stored or "motion_max_seq_length" in contents.config or "max_frames" in _own_geometry(contents)


def shape_of(contents: Contents, found: Recognised, **known: int) -> MotionGeometry:
    """Return the sizes that a motion module's tensors tell; `known` fields are taken as given.

    Raises:
        FileError: Its sites make no whole, or Stillmotion wrote that they are built otherwise.
    """
    assert found.motion is not None
    own = _own_geometry(contents)
    positions = own.get("max_frames", contents.config.get("motion_max_seq_length"))
    if isinstance(positions, int) and positions > 0 and not found.motion.has_positions:
        known = {"max_frames": positions} | known
    try:
        geometry = MotionGeometry.from_shapes(
            {name: tuple(tensor.shape) for name, tensor in found.motion.tensors.items()}, **known
        )
    except MismatchError as error:
        raise FileError(f"{contents.path} holds part of a motion module only. {error}") from error
    _require_architecture(contents, geometry)
    if geometry.has_up_blocks != own.get("has_up_blocks", True):
        raise FileError(f"{contents.path} holds part of a motion module only: nothing for the UNet's way up.")
    attends = ARCHITECTURES[geometry.architecture].attends
    if attends and geometry.attentions_per_block != own.get("attentions_per_block", 2):
        raise FileError(f"{contents.path} has one temporal attention per block, where motion modules have two.")
    return geometry


def geometry_of(contents: Contents, found: Recognised, **known: int) -> MotionGeometry:
    """Return all sizes of a recognised motion module; `known` fields are taken as given.

    Heads and norm groups, which no tensor tells, stand in what Stillmotion wrote or in a config, and are otherwise those
    of every released module: 8 and 32.

    Raises:
        FileError: The module's sites make no whole.
        MismatchError: What is said does not fit the shapes.
    """
    own = _own_geometry(contents)
    for name, key in _UNTOLD.items():
        value = own.get(name, contents.config.get(key))
        if value is not None and name not in known:
            known[name] = _one_number(value, name, contents)
    geometry = shape_of(contents, found, **known)
    _require_divisible(contents, geometry)
    return geometry


def own_norm(contents: Contents) -> NormStatistics | None:
    """Return the norm statistics that Stillmotion wrote into a motion module's file, or None.

    Raises:
        FileError: It is none that this version knows.
    """
    norm = contents.own.get("motion_norm")
    if norm is not None and norm not in get_args(NormStatistics):
        raise FileError(f"{contents.path} says motion_norm {norm!r}; known are {', '.join(get_args(NormStatistics))}.")
    return norm


def known_variant(contents: Contents, found: Recognised, asked: str | None) -> str:
    """Return the name of the variant to build: what the file says, or else what was asked for.

    Raises:
        FileError: The file is of a kind of motion module that cannot be plugged in.
        MismatchError: Nothing tells the variant, the one asked for is unknown, or it contradicts the file.
    """
    path = contents.path
    if found.variant and found.variant not in VARIANTS:
        raise FileError(f"{path} cannot be plugged in here. It is {found.note}")
    told, note = variant_of(contents, found)
    name = asked or told
    if name is None:
        raise MismatchError(f"{path} does not say which motion module it is. {note}")
    if name not in VARIANTS:
        raise MismatchError(f"{path}: variant {name!r} is unknown; expected one of {', '.join(VARIANTS)}.")
    if contents.own.get("variant") not in (None, name):
        raise MismatchError(f"{path} says that it is a {told} module; variant={asked!r} contradicts it, leave it out.")
    return name


def _own_geometry(contents: Contents) -> Mapping[str, Any]:
    geometry = contents.own.get("geometry", {})
    return geometry if isinstance(geometry, Mapping) else {}


def _require_architecture(contents: Contents, geometry: MotionGeometry) -> None:
    """Raise `FileError` if the tensors are of another architecture than was written; files say none before it was told."""
    told = _own_geometry(contents).get("architecture", geometry.architecture)
    if told not in ARCHITECTURES:
        raise FileError(
            f"{contents.path} says architecture {told!r}; known are {', '.join(ARCHITECTURES)}. Update to read it."
        )
    if told != geometry.architecture:
        raise FileError(
            f"{contents.path} says that it is a {told} module, but holds a {geometry.architecture}; fetch it again."
        )


def _one_number(value: Any, name: str, contents: Contents) -> int:
    """Return the number, or the one that a list repeats; configs may give one per level."""
    numbers = set(value) if isinstance(value, list | tuple) else {value}
    if len(numbers) == 1 and isinstance(number := numbers.pop(), int) and number > 0:
        return number
    raise MismatchError(f"{contents.path}: {name} is {value!r}; expected one positive number for all levels.")


def _require_divisible(contents: Contents, geometry: MotionGeometry) -> None:
    attends = ARCHITECTURES[geometry.architecture].attends
    for name in _UNTOLD if attends else ("norm_num_groups",):
        number = getattr(geometry, name)
        odd = [width for width in geometry.block_out_channels if width % number]
        if odd:
            raise MismatchError(
                f"{contents.path}: {name} is {number}, which does not divide its width of {odd[0]} channels"
                f"{'; say how many heads it has with num_attention_heads' if 'heads' in name else ''}."
            )
