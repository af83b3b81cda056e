"""Custom Diffusion (arXiv 2212.04488): the layers that read the text, learnt anew, with the words they were learnt for.

    diffusers       pytorch_custom_diffusion_weights.{safetensors,bin}
                    …attn2.processor.to_k_custom_diffusion.weight, to_v, and to_q, to_out.0 where they were trained, too;
                    beside it a file for each word: <new1>.safetensors or <new1>.bin
    the reference   delta.ckpt   model.diffusion_model.…attn2.to_k.weight, and embed: (words, width) for <new1>, <new2>, …
                    delta.bin    unet: …attn2.to_k.weight, modifier_token: <new1>
                    either compressed: …attn2.to_k.weight: u, v with W + u v

All but the compressed hold the weights themselves; strength s gives W + s · (theirs − W), 1 being theirs.
"""

import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from stillmotion.errors import FileError, MismatchError
from stillmotion.t2i.embeddings import LearntWord, learnt_words
from stillmotion.t2i.models import T2I
from stillmotion.t2i.original_names import UNET_PREFIX, unet_layers
from stillmotion.t2i.reading import read_tensors
from stillmotion.t2i.retuning import Change, Tuning

WEIGHT_NAMES = (
    "pytorch_custom_diffusion_weights.safetensors",
    "pytorch_custom_diffusion_weights.bin",
    "delta.bin",
    "delta.ckpt",
)
"""What the file is called in the folder of a training, the preferred first."""

WORD_FILE = re.compile(r"<.+>\.(safetensors|bin|pt)")
"""What diffusers calls the file of a new word."""

_END = r"to_(?:[qkv]|out)"
_DIFFUSERS = re.compile(
    rf"(?:unet\.)?(?P<attention>.+)\.processor\.(?P<end>{_END})_custom_diffusion(?:\.0)?\.(?P<leaf>weight|bias)"
)
_REFERENCE = re.compile(
    rf"(?:{re.escape(UNET_PREFIX)}|unet\.)?(?P<layer>.+\.attn2\.(?:to_[qkv]|to_out\.0))\.(?P<leaf>weight|bias)"
    r"(?:\.(?P<factor>[uv]))?"
)
_WORD = "modifier_token."


@dataclass(kw_only=True)
class CustomWeights:
    """What a file says of one parameter: its new value, or two factors of what is added to it."""

    whole: Tensor | None = None
    u: Tensor | None = None
    v: Tensor | None = None

    def change(self) -> Change:
        """Return what is added to the parameter."""
        if self.u is not None and self.v is not None:
            u, v = self.u, self.v
            return lambda own: u.to(own) @ v.to(own)
        assert self.whole is not None
        whole = self.whole
        return lambda own: whole.to(own) - own if whole.shape == own.shape else whole


@dataclass(frozen=True, kw_only=True)
class CustomFile:
    """A Custom Diffusion file, read."""

    weights: Mapping[tuple[str, str], CustomWeights]
    """By the layer, as the file names it, and by the parameter."""
    words: list[LearntWord] = field(default_factory=list)
    skipped: tuple[str, ...] = ()
    """Tensors that are neither."""


class CustomDiffusion:
    """Custom Diffusion weights at work in an image model, until removed."""

    def __init__(self, t2i: T2I, tuning: Tuning, words: list[LearntWord], files: Mapping[Path, str], line: str) -> None:
        self._tuning = tuning
        self._undo = ExitStack()
        self._undo.callback(tuning.remove)
        try:
            for word in words:
                t2i.words.learn(word.names, word.vectors, str(next(iter(files))))
                self._undo.callback(t2i.words.forget, word.names)
        except BaseException:
            self._undo.close()
            raise
        for file, kind in files.items():
            t2i.files[file] = kind
            self._undo.callback(t2i.files.pop, file, None)
        t2i.report.append(line)
        self._undo.callback(t2i.report.remove, line)

    @property
    def strength(self) -> float:
        """Return how far the layers are led to the learnt ones; at 0 they are the model's own."""
        return self._tuning.strength

    @strength.setter
    def strength(self, value: float) -> None:
        self._tuning.strength = value

    def remove(self) -> None:
        """Take weights and words out again: the model is then what it was, bit for bit. Safe to call twice."""
        self._undo.close()


def apply_custom_diffusion(
    t2i: T2I, path: str | Path, strength: float = 1.0, *, partial: bool = False
) -> CustomDiffusion:
    """Put Custom Diffusion weights to work in the UNet and teach the text encoder their words.

    Args:
        t2i: The image model; a line on what was applied is added to its report.
        path: The file, or the folder of the training; words in files beside it (`<new1>.bin`) come along.
        strength: How far the layers are led to the learnt ones.
        partial: Leave out, and report, what has no layer here, instead of refusing the file.

    Raises:
        FileError: The file is missing, damaged or unsafe.
        MismatchError: It is no Custom Diffusion file, or was made for another kind of model; nothing was applied then.
        ConfigError: A word is taken by another.
    """
    file = custom_diffusion_file(Path(path).expanduser())
    tensors, _ = read_tensors(file)
    found = read_custom_diffusion(tensors, str(file))
    words, files = list(found.words), {file: "custom_diffusion"}
    for beside in word_files(file):
        words += learnt_words(*read_tensors(beside), beside)
        files[beside] = "embedding"
    known = _layer_names(t2i.unet)
    missing = sorted({layer for layer, _ in found.weights if layer not in known})
    placed: dict[str, dict[str, Change]] = {}
    for (layer, leaf), weights in found.weights.items():
        if layer in known:
            placed.setdefault(known[layer], {})[leaf] = weights.change()
    if missing and (not partial or not placed):
        raise MismatchError(
            f"{file}: {len(missing)} of its layers are not in this model, first {missing[0]}; it was made for another kind."
        )
    names = ", ".join(repr(name) for word in words for name in word.names)
    line = f"{file.name}: {len(placed)} layers applied{f', words {names}' if names else ''}"
    line += f"; skipped {len(missing)} (no such layer here)" if missing else ""
    line += f"; skipped {len(found.skipped)} (none of Custom Diffusion's)" if found.skipped else ""
    try:
        tuning = Tuning(t2i.unet, placed, strength)
    except MismatchError as error:
        raise MismatchError(f"{file} was made for another kind of model: {error}") from error
    return CustomDiffusion(t2i, tuning, words, files, line)


def read_custom_diffusion(tensors: Mapping[str, Tensor], where: str) -> CustomFile:
    """Return what the tensors of a Custom Diffusion file say; raise `MismatchError` where they are none."""
    weights: dict[tuple[str, str], CustomWeights] = {}
    words: list[LearntWord] = []
    skipped = []
    for name, value in tensors.items():
        if told := _DIFFUSERS.fullmatch(name):
            layer = f"{told['attention']}.{told['end']}{'.0' if told['end'] == 'to_out' else ''}"
            weights[layer, told["leaf"]] = CustomWeights(whole=value)
        elif told := _REFERENCE.fullmatch(name):
            entry = weights.setdefault((told["layer"], told["leaf"]), CustomWeights())
            setattr(entry, told["factor"] or "whole", value)
        elif name == "embed" and value.ndim == 2:
            words += [LearntWord(names=(f"<new{n + 1}>",), vectors=row[None].float()) for n, row in enumerate(value)]
        elif name.startswith(_WORD):
            vectors = value.detach().float().reshape(-1, value.shape[-1])
            words.append(LearntWord(names=(name.removeprefix(_WORD),), vectors=vectors))
        else:
            skipped.append(name)
    halves = [layer for (layer, _), entry in weights.items() if (entry.u is None) != (entry.v is None)]
    if halves:
        raise MismatchError(f"{where} is not whole: {len(halves)} layers lack one of u and v, first {halves[0]}.")
    if not weights:
        raise MismatchError(
            f"{where} is no Custom Diffusion file; its {len(tensors)} tensors begin with {min(tensors)}."
        )
    return CustomFile(weights=weights, words=words, skipped=tuple(skipped))


def custom_diffusion_file(path: Path) -> Path:
    """Return the file of weights; of a folder the one that bears a usual name."""
    if not path.is_dir():
        return path
    found = next((path / name for name in WEIGHT_NAMES if (path / name).is_file()), None)
    if found is None:
        raise FileError(f"{path} is a folder without {WEIGHT_NAMES[0]}; give the file of the Custom Diffusion weights.")
    return found


def word_files(weights: Path) -> list[Path]:
    """Return the files of new words that lie beside Custom Diffusion weights."""
    return (
        sorted(file for file in weights.parent.iterdir() if WORD_FILE.fullmatch(file.name)) if weights.exists() else []
    )


def _layer_names(unet: nn.Module) -> dict[str, str]:
    """Return the path of every layer by its name here and in the original layout."""
    layers = unet_layers(unet)
    return {path: path for path in layers} | {original: path for path, original in layers.items()}
