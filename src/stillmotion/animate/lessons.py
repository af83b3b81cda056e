"""What the image model is taught for a job: words, Custom Diffusion weights, LoRAs; their files, and what to say of them."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from stillmotion.animate.config import AnimateConfig
from stillmotion.animate.named import file_said
from stillmotion.checkpoints import FileInfo
from stillmotion.config import AdapterFile, EmbeddingFile
from stillmotion.errors import ConfigError, FileError
from stillmotion.t2i import T2I, apply_custom_diffusion, apply_embedding, apply_lora
from stillmotion.t2i.custom_diffusion import custom_diffusion_file, word_files
from stillmotion.t2i.embeddings import embedding_file, negative_half, words_of
from stillmotion.t2i.emphasis import weighted


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One file of a lesson."""

    role: str
    """What it is to the job: embeddings.0, embeddings.0.negative, custom_diffusion.0, custom_diffusion.0.<new1>.bin."""
    field: str
    """Which field takes such a file."""
    path: str
    """The file, or the folder of a training, as the user said it."""
    strength: float | None = None
    """How strongly it acts, where that can be said."""


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """What is taught, in this order; what has strength 0 is left out."""

    embeddings: tuple[EmbeddingFile, ...] = ()
    custom_diffusion: tuple[AdapterFile, ...] = ()
    loras: tuple[AdapterFile, ...] = ()
    partial: tuple[str, ...] = ()
    """Names of files that may fit in part."""

    @classmethod
    def of(cls, config: AnimateConfig) -> "Lessons":
        """Return the lessons of a job, DreamArtist's negative halves included."""
        return cls(
            embeddings=tuple(file for _, file in _embeddings(config)),
            custom_diffusion=tuple(file for file in config.custom_diffusion if file.strength),
            loras=tuple(
                replace(file, path=file_said(config, "loras", file.path)) for file in config.loras if file.strength
            ),
            partial=config.allow_partial,
        )

    @contextmanager
    def at_work(self, t2i: T2I) -> Iterator[None]:
        """Teach the image model; afterwards it is what it was, in all cases."""
        with ExitStack() as stack:
            for embedding in self.embeddings:
                stack.callback(apply_embedding(t2i, embedding.path, embedding.word).remove)
            for file in self.custom_diffusion:
                partial = _name(file.path) in self.partial
                stack.callback(apply_custom_diffusion(t2i, file.path, file.strength, partial=partial).remove)
            for file in self.loras:
                partial = _name(file.path) in self.partial
                stack.callback(apply_lora(t2i, file.path, file.strength, partial=partial).remove)
            yield


def lessons_of(config: AnimateConfig) -> list[Lesson]:
    """Return the files of words and Custom Diffusion weights of a job; LoRAs are among its adapters."""
    found = [Lesson(role=role, field="embeddings", path=file.path) for role, file in _embeddings(config)]
    for index, file in enumerate(config.custom_diffusion):
        role = f"custom_diffusion.{index}"
        found.append(Lesson(role=role, field="custom_diffusion", path=file.path, strength=file.strength))
        found += [
            Lesson(role=f"{role}.{beside.name}", field="embeddings", path=str(beside))
            for beside in _words_beside(file.path)
        ]
    return found


def check_partial(config: AnimateConfig) -> None:
    """Raise `ConfigError` where `allow_partial` names no file of the job that could fit in part."""
    known = [_name(file.path) for file in (*config.loras, *config.custom_diffusion)]
    if strange := [name for name in config.allow_partial if name not in known]:
        raise ConfigError(
            f"allow_partial: expected the name of one of loras or custom_diffusion ({', '.join(known) or 'there are none'}), "
            f"got {strange[0]!r}"
        )


def notes_on_words(
    config: AnimateConfig, prompts: list[str], negatives: list[str], files: Mapping[str, FileInfo]
) -> list[str]:
    """Return what to say of words that are taught, or listened for, and that the prompts lack."""
    said, denied = " ".join(map(_plain, prompts)), " ".join(map(_plain, negatives))
    notes = []
    for role, file in _embeddings(config):
        names = _names(file, files[role])
        if not any(_plain(name) in f"{said} {denied}" for name in names):
            field = "negative_prompt" if role.endswith(".negative") else "prompt"
            notes.append(f"{role}: {Path(file.path).name} does nothing until {field} has its word, {_or(names)}")
    for index, lora in enumerate(config.loras):
        words = files[f"loras.{index}"].trigger_words
        if lora.strength and words and not any(_plain(word) in said for word in words):
            notes.append(f"loras.{index}: {Path(lora.path).name} listens for {_or(words)}, which the prompt lacks")
    lacking = [word for word in config.trigger_words if _plain(word) not in said]
    return notes + ([f"trigger_words: the prompt lacks {_or(lacking)}"] if lacking else [])


def _embeddings(config: AnimateConfig) -> Iterator[tuple[str, EmbeddingFile]]:
    """Yield every textual inversion with its role; behind a positive half of DreamArtist's the negative one beside it."""
    files = [replace(file, path=file_said(config, "embeddings", file.path)) for file in config.embeddings]
    given = {Path(file.path).expanduser() for file in files}
    for index, file in enumerate(files):
        role, path = f"embeddings.{index}", Path(file.path).expanduser()
        yield role, file
        negative = negative_half(path)
        if negative is not None and negative not in given:
            ending = negative.stem.removeprefix(path.stem)
            yield f"{role}.negative", EmbeddingFile(str(negative), None if file.word is None else file.word + ending)


def _words_beside(path: str) -> list[Path]:
    try:
        return word_files(custom_diffusion_file(Path(path).expanduser()))
    except FileError:
        return []  # what is wrong with the file is said where it is inspected


def _names(file: EmbeddingFile, info: FileInfo) -> tuple[str, ...]:
    if file.word is not None:
        return (file.word,)
    if len(info.words) > 1:
        return info.words
    return words_of(info.words[0] if info.words else "", embedding_file(Path(file.path).expanduser()))


def _name(path: str) -> str:
    return Path(path).name


def _plain(text: str) -> str:
    """Return a text as words are looked for in it: without weights, in one case, underscores being spaces."""
    return " ".join("".join(piece for piece, _ in weighted(text)).casefold().replace("_", " ").split())


def _or(words: tuple[str, ...] | list[str]) -> str:
    return " or ".join(repr(word) for word in words)
