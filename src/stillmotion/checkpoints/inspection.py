"""What is this file? Told from names, shapes and what the file says of itself, without building a model."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from stillmotion.checkpoints.contents import Contents, config_in, open_contents
from stillmotion.checkpoints.files import sha256
from stillmotion.checkpoints.identity import has_positions, identify, shape_of, variant_of
from stillmotion.checkpoints.motion_keys import POSITION_ENDINGS
from stillmotion.checkpoints.recognition import KINDS, TEXT_WIDTHS, Recognised
from stillmotion.checkpoints.trigger_words import trigger_words
from stillmotion.motion import ARCHITECTURES

_WIDTHS = {family: width for width, family in TEXT_WIDTHS.items()}
_READERS = ("lora", "domain_adapter", "custom_diffusion")  # what reads the text, and was made for one width of it


@dataclass(frozen=True, kw_only=True)
class FileInfo:
    """What a file of weights is."""

    path: Path
    """The file or folder."""

    kind: str
    """One of `recognition.KINDS`, such as "motion_module"."""

    variant: str | None = None
    """The motion module's variant, or the image model's family; None where the file does not tell."""

    architecture: str | None = None
    """What a motion module is built of: one of `ARCHITECTURES`."""

    dialect: str | None = None
    """Whose names the tensors bear."""

    container: str | None = None
    """How the tensors are stored: "safetensors", "torch_zip" or "torch_pickle"; None for a folder of several models."""

    widths: tuple[int, ...] | None = None
    """Channels of the UNet's levels that a motion module is made for."""

    num_frames: int | None = None
    """Positions that a motion module has: the most frames it moves at once. A temporal_conv has none, and no such bound."""

    rank: int | None = None
    """The largest rank of a LoRA."""

    alpha: float | None = None
    """The alpha of a LoRA, which scales it by alpha / rank, where it stores one and the same for every layer."""

    dtype: str | None = None
    """The commonest dtype of the weights."""

    num_parameters: int = 0
    """Weights of what the file is; positional encodings, and a UNet beside a motion module, are left out."""

    size: int = 0
    """Bytes of the file; of all files of a folder."""

    sha256: str | None = None
    """Of the file with the tensors; None for a folder of several models, and where it was not asked for."""

    words: tuple[str, ...] = ()
    """Names of the words that it teaches the text encoder, as far as they are stored."""

    num_vectors: int | None = None
    """How many vectors these words have."""

    text_width: int | None = None
    """Of the text features of the models that it was made for, where words or cross-attention tell."""

    trigger_words: tuple[str, ...] = ()
    """Words that a LoRA listens for, as far as the file tells."""

    metadata: Mapping[str, str] = field(default_factory=dict)
    """Plain values that stand in the file beside the tensors."""

    note: str = ""
    """What a person should know about it."""

    def __str__(self) -> str:
        """Return what it is, in a clause: "a MotionLoRA (rank 64)"."""
        inside = [f"variant {self.variant}"] if self.variant else []
        inside += [self.architecture] if self.architecture not in (None, "transformer") else []
        inside += [f"rank {self.rank}"] if self.rank else []
        return KINDS.get(self.kind, self.kind) + (f" ({', '.join(inside)})" if inside else "")


def inspect(path: str | PathLike[str], *, hashed: bool = True) -> FileInfo:
    """Return what the file or folder at `path` is.

    Only names and shapes are read, and the bytes for the sha256, piece by piece; without `hashed`, some kilobytes.

    Raises:
        FileError: It holds no weights, is damaged, or is a pickle that wants code; the message says what it is instead.
    """
    path = Path(path).expanduser()
    if (path / "model_index.json").is_file():
        return _pipeline(path)
    contents = open_contents(path, values=False)
    found = identify(contents)
    variant, note = variant_of(contents, found)
    weights = _weights(contents.tensors, found)
    return FileInfo(
        path=path,
        kind=found.kind,
        variant=variant,
        dialect=str(contents.own.get("dialect", found.dialect)) if found.dialect else None,
        container=contents.container,
        rank=found.lora.rank if found.lora else None,
        alpha=_alpha(found),
        dtype=_commonest_dtype(weights),
        num_parameters=sum(tensor.numel() for tensor in weights),
        size=_size(path),
        sha256=sha256(contents.file) if hashed else None,
        metadata=dict(contents.metadata),
        **_words(contents, found),
        note=" ".join(part for part in (found.note, note) if part),
        **_sizes(contents, found),
    )


def _pipeline(path: Path) -> FileInfo:
    """Return what a folder of a diffusers pipeline is, from its configs."""
    name = str(config_in(path, "model_index.json").get("_class_name", "pipeline"))
    width = config_in(path / "unet").get("cross_attention_dim")
    family = TEXT_WIDTHS.get(width) if isinstance(width, int) else None
    return FileInfo(
        path=path, kind="pipeline", dialect="diffusers", variant=family, size=_size(path), note=f"A {name}."
    )


def _weights(tensors: Mapping[str, Tensor], found: Recognised) -> list[Tensor]:
    """Return the tensors that are weights of what the file is."""
    if found.motion is not None:
        tensors = found.motion.tensors
    elif found.lora is not None:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith(".alpha")}
    return [tensor for name, tensor in tensors.items() if not name.endswith(POSITION_ENDINGS)]


def _sizes(contents: Contents, found: Recognised) -> dict[str, Any]:
    """Return the sizes of a motion module, as far as the file tells them."""
    if found.kind != "motion_module" or found.motion is None:
        return {}
    geometry = shape_of(contents, found)
    bounded = ARCHITECTURES[geometry.architecture].attends and has_positions(contents, found)
    return {
        "widths": geometry.block_out_channels,
        "num_frames": geometry.max_frames if bounded else None,
        "architecture": geometry.architecture,
    }


def _words(contents: Contents, found: Recognised) -> dict[str, Any]:
    """Return the words that a file teaches, and those that it listens for."""
    told: dict[str, Any] = {"trigger_words": trigger_words(contents.metadata)} if found.kind == "lora" else {}
    if found.words is None:
        return told | {"text_width": _WIDTHS.get(found.variant or "") if found.kind in _READERS else None}
    width = _WIDTHS["sdxl"] if found.words.is_sdxl else found.words.width
    stored = contents.metadata.get("name", "") if found.kind == "textual_inversion" else ""
    words = found.words.words or ((stored,) if stored else ())
    return told | {"words": words, "num_vectors": found.words.num_vectors, "text_width": width}


def _alpha(found: Recognised) -> float | None:
    values = {float(alpha) for alpha in found.lora.alpha.values() if not alpha.is_meta} if found.lora else set()
    return values.pop() if len(values) == 1 else None


def _commonest_dtype(tensors: Iterable[Tensor]) -> str | None:
    counts: Counter[str] = Counter()
    for tensor in tensors:
        counts[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    return counts.most_common(1)[0][0] if counts else None


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
