"""What is this file? Told from names, shapes and what the file says of itself, without building a model."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from torch import Tensor

from stillmotion.checkpoints.contents import Contents, open_contents
from stillmotion.checkpoints.files import sha256
from stillmotion.checkpoints.motion_keys import POSITIONS
from stillmotion.checkpoints.recognition import KINDS, Recognised, recognise
from stillmotion.errors import FileError, MismatchError
from stillmotion.motion import MotionGeometry

NO_POSITIONS = (
    "It stores no positional encoding, so that v1, v3 and AnimateLCM cannot be told apart; say which by variant=, for "
    "instance variant='v1' for a file that the reference's trainer wrote."
)


@dataclass(frozen=True, kw_only=True)
class FileInfo:
    """What a file of weights is."""

    path: Path
    """The file or folder."""
    kind: str
    """One of `recognition.KINDS`, such as "motion_module"."""
    variant: str | None = None
    """The motion module's variant, or the image model's family; None where the file does not tell."""
    dialect: str | None = None
    """Whose names the tensors bear."""
    widths: tuple[int, ...] | None = None
    """Channels of the UNet's levels that a motion module is made for."""
    num_frames: int | None = None
    """Positions that a motion module has: the most frames it moves at once."""
    rank: int | None = None
    """The largest rank of a LoRA."""
    dtype: str | None = None
    """The commonest dtype."""
    num_parameters: int = 0
    """Numbers in all tensors, positional encodings left out."""
    size: int = 0
    """Bytes of the file; of all files of a folder."""
    sha256: str | None = None
    """Of the file with the tensors; None for a folder of several models."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Plain values that stand in the file beside the tensors."""
    note: str = ""
    """What a person should know about it."""

    def __str__(self) -> str:
        """Return what it is, in a clause: "a MotionLoRA (rank 64)"."""
        inside = [f"variant {self.variant}"] if self.variant else []
        inside += [f"rank {self.rank}"] if self.rank else []
        return KINDS.get(self.kind, self.kind) + (f" ({', '.join(inside)})" if inside else "")


def inspect(path: str | PathLike[str]) -> FileInfo:
    """Return what the file or folder at `path` is; only names and shapes are read, and the bytes for the sha256.

    Raises `FileError` if it holds no weights, is damaged, or is a pickle that wants code.
    """
    path = Path(path).expanduser()
    if (path / "model_index.json").is_file():
        return FileInfo(path=path, kind="pipeline", dialect="diffusers", size=_size(path))
    contents = open_contents(path, values=False)
    found = recognise(contents.tensors)
    variant, note = variant_of(contents, found)
    return FileInfo(
        path=path,
        kind=str(contents.own.get("kind", found.kind)),
        variant=variant,
        dialect=found.dialect,
        rank=found.lora.rank if found.lora else None,
        dtype=_dtype(contents.tensors),
        num_parameters=sum(t.numel() for name, t in contents.tensors.items() if not name.endswith((POSITIONS, ".pe"))),
        size=_size(path),
        sha256=sha256(contents.file),
        metadata=dict(contents.metadata),
        note=" ".join(part for part in (found.note, note) if part),
        **_sizes(found),
    )


def geometry_of(found: Recognised, **known: int) -> MotionGeometry:
    """Return the geometry of a recognised motion module; raise `MismatchError` if its sites make no whole."""
    assert found.motion is not None
    return MotionGeometry.from_shapes({name: tuple(t.shape) for name, t in found.motion.tensors.items()}, **known)


def variant_of(contents: Contents, found: Recognised) -> tuple[str | None, str]:
    """Return a file's variant, and a note where it is not certain. What Stillmotion wrote itself is authoritative.

    Otherwise, as every tool of the field does: a mid block means v2; three levels SDXL; 24 positions v1, else v3. A
    MotionLoRA with mid-block targets was trained for v2.
    """
    if contents.own.get("variant"):
        return str(contents.own["variant"]), ""
    if found.lora is not None and found.kind == "motion_lora":
        mid = any(target.startswith("mid_block.") for target in found.lora.down)
        return ("v2", "") if mid else (None, "")
    if found.variant or found.motion is None or found.kind != "motion_module":
        return found.variant, ""
    geometry = _geometry_or_none(found)
    if geometry is None:
        return None, ""
    positions = geometry.max_frames if found.motion.has_positions else contents.config.get("motion_max_seq_length")
    if len(geometry.block_out_channels) == 3:
        return "sdxl_beta", ""
    if geometry.has_mid_block:
        return "v2", ""
    if positions is None:
        return None, NO_POSITIONS
    return ("v1", "") if positions == 24 else ("v3", "")


def name_of(info: FileInfo) -> str:
    """Return the file with what it is, for a message."""
    return f"{info.path} is {info}"


def _sizes(found: Recognised) -> dict[str, tuple[int, ...] | int | None]:
    geometry = _geometry_or_none(found) if found.kind == "motion_module" and found.motion else None
    if geometry is None or found.motion is None:
        return {}
    return {
        "widths": geometry.block_out_channels,
        "num_frames": geometry.max_frames if found.motion.has_positions else None,
    }


def _geometry_or_none(found: Recognised) -> MotionGeometry | None:
    try:
        return geometry_of(found)
    except MismatchError:
        return None


def _dtype(tensors: Mapping[str, Tensor]) -> str | None:
    counts: Counter[str] = Counter()
    for tensor in tensors.values():
        counts[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    return counts.most_common(1)[0][0] if counts else None


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def require_kind(path: Path, info: Recognised, wanted: tuple[str, ...], why: str) -> None:
    """Raise `FileError` unless the file is of a wanted kind."""
    if info.kind not in wanted:
        raise FileError(f"{path} is {KINDS.get(info.kind, info.kind)}, {why}")
