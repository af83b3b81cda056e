"""Textual inversions: words learnt from a few pictures, in every layout that people have.

    A1111                `.pt`            string_to_param: {"*": (vectors, width)}, name: "a word"
    A1111, ComfyUI       `.safetensors`   emb_params: (vectors, width)
    diffusers            `learned_embeds.bin`, `.safetensors`   "<a-word>": (width) or (vectors, width)
    SDXL                 clip_l and clip_g, (vectors, width) of each of its two text encoders

DreamArtist (arXiv 2211.11337) learns two: `name.pt` for the prompt and `name-neg.pt` for the negative prompt. Either is
a file like any other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from stillmotion.errors import MismatchError
from stillmotion.t2i.models import T2I
from stillmotion.t2i.reading import read_tensors
from stillmotion.t2i.words import Vectors

NEGATIVE_ENDINGS = ("-neg", "-uc")
"""What DreamArtist puts behind the name of the negative half, today and at first."""

_PARAM = "string_to_param."
_UNNAMED = ("emb_params", "*", "")
_GENERAL_STEM = "learned_embeds"
"""How the file is called that diffusers writes, whatever word it holds."""


@dataclass(frozen=True, kw_only=True)
class LearntWord:
    """A word of a file."""

    names: tuple[str, ...]
    """What stands for it in prompts."""
    vectors: Vectors
    vectors_2: Float[Tensor, "vectors width_2"] | None = None
    """Those for the second text encoder of Stable Diffusion XL."""


class Embedding:
    """A textual inversion at work in an image model, until removed."""

    def __init__(self, t2i: T2I, path: Path, words: list[LearntWord]) -> None:
        self._t2i = t2i
        self.path = path
        self.words: list[LearntWord] = []
        try:
            for word in words:
                self._learn(word)
        except BaseException:
            self._forget()
            raise
        count = sum(len(word.vectors) for word in words)
        told = ", ".join(" or ".join(repr(name) for name in word.names) for word in words)
        self._line = f"{path.name}: {count} vectors applied, as {told}"
        t2i.files[path] = "embedding"
        t2i.report.append(self._line)

    def remove(self) -> None:
        """Take the word out again: tokenizer and text encoder are then what they were. Safe to call twice."""
        if not self.words:
            return
        self._forget()
        self._t2i.report.remove(self._line)
        self._t2i.files.pop(self.path, None)

    def _learn(self, word: LearntWord) -> None:
        second = self._t2i.words_2
        if word.vectors_2 is not None and second is None:
            raise MismatchError(
                f"{self.path} is a textual inversion of Stable Diffusion XL (clip_l and clip_g); the model is of Stable "
                "Diffusion 1.x."
            )
        if second is not None and (word.vectors_2 is None or len(word.vectors_2) != len(word.vectors)):
            raise MismatchError(
                f"{self.path} is no textual inversion of Stable Diffusion XL, which has as many vectors for each of its two "
                "text encoders (clip_l and clip_g); the model is of Stable Diffusion XL."
            )
        self._t2i.words.learn(word.names, word.vectors, str(self.path))
        self.words.append(word)
        if second is not None and word.vectors_2 is not None:
            second.learn(word.names, word.vectors_2, str(self.path))

    def _forget(self) -> None:
        for word in self.words:
            self._t2i.words.forget(word.names)
            if self._t2i.words_2 is not None:
                self._t2i.words_2.forget(word.names)
        self.words = []


def apply_embedding(t2i: T2I, path: str | Path, word: str | None = None) -> Embedding:
    """Teach the image model the word of a textual inversion's file.

    Args:
        t2i: The image model; a line on what was applied is added to its report.
        path: The file, in any layout of A1111's or diffusers', or diffusers' folder.
        word: What stands for it in prompts; by default the file's name without its ending, and the name stored in it.

    Raises:
        FileError: The file is missing, damaged or unsafe.
        MismatchError: It is no textual inversion, or one for another kind of model.
        ConfigError: The word is taken by another.
    """
    file = embedding_file(Path(path).expanduser())
    tensors, beside = read_tensors(file)
    return Embedding(t2i, file, learnt_words(tensors, beside, file, word))


def learnt_words(
    tensors: Mapping[str, Tensor], beside: Mapping[str, str], file: Path, word: str | None = None
) -> list[LearntWord]:
    """Return the words of a textual inversion's file; raise `MismatchError` where it is none."""
    if tensors.keys() >= {"clip_l", "clip_g"}:
        names = (word,) if word else words_of(beside.get("name", ""), file)
        first, second = (_rows(tensors[name]) for name in ("clip_l", "clip_g"))
        return [LearntWord(names=names, vectors=first, vectors_2=second)]
    found = {name: tensor for name, tensor in tensors.items() if not name.startswith("string_to_token.")}
    vectors = {name.removeprefix(_PARAM): _rows(tensor) for name, tensor in found.items() if _is_vectors(tensor)}
    if not vectors or len(vectors) != len(found):
        raise MismatchError(f"{file} is no textual inversion; its {len(tensors)} tensors begin with {min(tensors)}.")
    if word is not None and len(vectors) > 1:
        raise MismatchError(
            f"{file} holds {len(vectors)} words ({', '.join(vectors)}); {word!r} can stand for one only."
        )
    if len(vectors) > 1:
        return [LearntWord(names=(name,), vectors=value) for name, value in vectors.items()]
    ((name, value),) = vectors.items()
    told = beside.get("name", "") if name in _UNNAMED else name
    return [LearntWord(names=(word,) if word else words_of(told, file), vectors=value)]


def embedding_file(path: Path) -> Path:
    """Return the file of a textual inversion; of a folder the one that diffusers calls so."""
    named = (path / f"{_GENERAL_STEM}{ending}" for ending in (".safetensors", ".bin"))
    return next((file for file in named if file.is_file()), path)


def negative_half(path: Path) -> Path | None:
    """Return the file of DreamArtist's negative half that lies beside the positive one."""
    if not path.is_file():
        return None
    names = [path.with_stem(path.stem + ending) for ending in NEGATIVE_ENDINGS]
    return next((name for name in names if name.is_file()), None)


def words_of(stored: str, file: Path) -> tuple[str, ...]:
    """Return what stands for a textual inversion: its file's name and the name stored in it, empty where there is none."""
    if not stored:
        return (file.stem,)
    return (stored,) if file.stem.startswith(_GENERAL_STEM) else tuple(dict.fromkeys((file.stem, stored)))


def _is_vectors(tensor: Tensor) -> bool:
    return tensor.ndim in (1, 2) and tensor.is_floating_point()


def _rows(tensor: Tensor) -> Vectors:
    return tensor.detach().float().reshape(-1, tensor.shape[-1])
