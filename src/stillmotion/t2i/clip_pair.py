"""CLIP, pictures and texts in one space: transformers' own model and processor, loaded whatever folder they lie in."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from stillmotion.errors import FileError

_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_FILES = ("*.json", "*.txt")
_BATCH = 32  # pictures that are read at once


class NotHereError(FileError):
    """A hub model that was not fetched before and cannot be fetched now."""


@dataclass(frozen=True, eq=False)
class ClipPair:
    """A CLIP model, in float32; features are of unit length, so that a product of two is their cosine."""

    model: CLIPModel
    processor: CLIPImageProcessorPil
    tokenizer: CLIPTokenizer
    files: dict[str, str]
    """The sha256 of each weight file by its name."""

    @torch.inference_mode()
    def of_pictures(
        self, pictures: Sequence[UInt8[np.ndarray, "height width 3"]]
    ) -> Float[Tensor, "pictures features"]:
        """Return the features of pictures of any sizes, on the CPU."""
        found = []
        for batch in _batches(pictures):
            values = self.processor(images=list(batch), input_data_format="channels_last", return_tensors="pt")
            read = self.model.get_image_features(pixel_values=values.pixel_values.to(self.model.device)).pooler_output
            found.append(_unit(read))
        return torch.cat(found)

    @torch.inference_mode()
    def of_texts(self, texts: Sequence[str]) -> Float[Tensor, "texts features"]:
        """Return the features of texts, on the CPU; what is over the model's length is cut (`tokens_cut`)."""
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self._length, return_tensors="pt"
        ).to(self.model.device)
        return _unit(self.model.get_text_features(**tokens).pooler_output)

    def tokens_cut(self, text: str) -> int:
        """Return how many tokens of a text are over the model's length, and so are not read."""
        return max(len(self.tokenizer(text, truncation=False, verbose=False).input_ids) - self._length, 0)

    @property
    def _length(self) -> int:
        return int(self.model.config.text_config.max_position_embeddings)


def named_clip(source: str) -> None:
    """Refuse by `FileError` what cannot be a CLIP model: a folder that is none, a path where nothing lies."""
    path = Path(source).expanduser()
    if path.is_dir():
        _check(path)
    elif path.is_file():
        raise FileError(f"{source} is a file; give the folder of a CLIP model, the one that holds its config.json.")
    elif not _HUB_ID.fullmatch(source):
        raise FileError(
            f"{source} does not exist; give the folder of a CLIP model or a hub id such as openai/clip-vit-large-patch14."
        )


def load_clip(source: str, device: str | torch.device = "cpu") -> ClipPair:
    """Return the CLIP model of a folder or hub id.

    Its tokenizer lies in the folder too, or in the folder `tokenizer` beside it, as in a diffusers pipeline.

    Raises:
        NotHereError: A hub model was not fetched before and cannot be fetched now.
        FileError: The folder is no CLIP model, or it is damaged or incomplete.
    """
    named_clip(source)
    path = Path(source).expanduser()
    folder = path if path.is_dir() else _fetched(source)
    _check(folder)
    words = next((place for place in (folder, folder.parent / "tokenizer") if _has_tokenizer(place)), None)
    if words is None:
        raise FileError(
            f"{source} has no tokenizer (vocab.json with merges.txt, or tokenizer.json), nor one beside it."
        )
    try:
        model, told = CLIPModel.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
        )
        processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
        tokenizer = CLIPTokenizer.from_pretrained(words, local_files_only=True)
    except Exception as error:  # A damaged file can make transformers raise anything.
        reason = str(error).strip().splitlines()
        raise FileError(f"{source} cannot be loaded as a CLIP model: {reason[0] if reason else error!r}") from error
    if missing := sorted(told["missing_keys"]):
        raise FileError(f"{source} is incomplete: {len(missing)} of its weights are missing, the first {missing[0]}.")
    model.eval().requires_grad_(False)
    return ClipPair(model.to(device), processor, tokenizer, {file.name: _sha256(file) for file in _weights(folder)})


def _fetched(source: str) -> Path:
    """Return the folder of a hub model, fetched if it is not here; only what is read of it."""
    try:
        folder = Path(snapshot_download(source, local_files_only=True))
        if any(_weights(folder)):
            return folder
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(snapshot_download(source, allow_patterns=[*_FILES, *_WEIGHTS]))
    except Exception as error:  # The network and the hub fail in many ways; all mean the same here.
        raise NotHereError(
            f"{source} was not fetched from the Hugging Face Hub before, and fetching it now failed "
            f"({type(error).__name__}); go online once and try again, or give the path of a folder"
        ) from error


def _check(folder: Path) -> None:
    config = folder / "config.json"
    if not config.is_file():
        inside = folder / "clip"
        hint = f"; did you mean {inside}?" if (inside / "config.json").is_file() else ""
        raise FileError(f"{folder} is no CLIP model: it has no config.json{hint}")
    try:
        settings: Any = json.loads(config.read_text(encoding="utf-8"))
        kind = settings.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise FileError(f"{config} cannot be read as the config of a CLIP model.") from error
    if kind != "clip":
        half = " (half a pair: text and vision are both needed)" if str(kind).startswith("clip_") else ""
        raise FileError(f"{folder} is no CLIP model: its config.json says {kind!r}{half}; expected 'clip'.")
    if not any(_weights(folder)):
        raise FileError(f"{folder} has no weights (model.safetensors); get the folder whole.")
    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise FileError(f"{folder} does not say how pictures are prepared (preprocessor_config.json is missing).")


def _weights(folder: Path) -> list[Path]:
    """Return the weight files that are read: safetensors, or pickles of plain tensors where there are none."""
    return next((found for pattern in _WEIGHTS if (found := sorted(folder.glob(pattern)))), [])


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer.json").is_file() or (
        (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file()
    )


def _unit(features: Float[Tensor, "rows features"]) -> Float[Tensor, "rows features"]:
    return (features / features.norm(dim=-1, keepdim=True)).cpu()


def _batches(pictures: Sequence[np.ndarray]) -> Iterator[Sequence[np.ndarray]]:
    return (pictures[start : start + _BATCH] for start in range(0, len(pictures), _BATCH))


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
