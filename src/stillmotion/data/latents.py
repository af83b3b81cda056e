"""The latent cache: every frame's posterior under the VAE, so that training neither decodes nor encodes.

The VAE of Stable Diffusion sees one frame at a time. So frames are cached, not training clips: start and stride are drawn
on the cache, and mean and log-variance are kept, so that each epoch draws its latents anew.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, final, runtime_checkable

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from stillmotion.data.cache_folder import (
    HEADER,
    CachedClip,
    CacheHeader,
    check_header,
    clip_path,
    damaged,
    read_header,
    read_index,
)
from stillmotion.data.sampling import ClipRecipe, Size
from stillmotion.data.sources import ClipItem
from stillmotion.errors import ConfigError, FileError

Images = Float[Tensor, "images 3 height width"]
Moments = Float[Tensor, "frames channels rows columns"]

_ENCODER = ("encoder.", "quant_conv.")  # of a VAE, what decides its latents; decoders are often tuned alone


@runtime_checkable
class Encode(Protocol):
    """A VAE's encoder."""

    def __call__(self, images: Images) -> tuple[Moments, Moments]:
        """Return mean and log-variance of each image's posterior, not scaled; images are float32 in [-1, 1]."""
        ...


def vae_fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Return a sha256 over the encoder's tensors of a VAE by diffusers' names; over all where no name is known.

    Values are taken as float32, so weights stored in half precision are the same whatever they are loaded as. Two VAEs
    that differ in their decoders alone have the same latents, and so the same fingerprint.
    """
    chosen = [name for name in sorted(tensors) if name.startswith(_ENCODER)] or sorted(tensors)
    digest = hashlib.sha256()
    for name in chosen:
        values = tensors[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name} {list(values.shape)}\n".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def recipe_on_cache(recipe: ClipRecipe, header: CacheHeader) -> ClipRecipe:
    """Return the recipe in frames of the cache, which may hold every second frame only.

    Raises `ConfigError` where the cache does not have the frames, sizes or mirror pictures that the recipe asks for.
    """
    if recipe.frame_stride % header.keep_every:
        raise ConfigError(
            f"frame_stride: expected a multiple of {header.keep_every}, since the cache holds every {header.keep_every}th "
            f"frame, got {recipe.frame_stride}"
        )
    if (recipe.width, recipe.height) != (header.width, header.height):
        raise ConfigError(
            f"width, height: the cache is of {header.width}x{header.height}, got {recipe.width}x{recipe.height}"
        )
    if recipe.buckets and recipe.sizes != header.buckets:
        held = f"the sizes {_told(header.buckets)}" if header.buckets else "one size"
        raise ConfigError(
            f"buckets: the cache holds {held}, got {_told(recipe.sizes)}; leave it to the cache, or prepare the clips again"
        )
    if recipe.horizontal_flip:
        raise ConfigError("horizontal_flip: a cache holds no mirrored pictures; leave it off, or train from the clips")
    return recipe.replace(frame_stride=recipe.frame_stride // header.keep_every)


def _told(sizes: Sequence[Size]) -> str:
    return ", ".join(f"{width}x{height}" for width, height in sizes)


@final
class LatentCache:
    """A complete cache, opened for reading. Nothing but its index is held in memory."""

    def __init__(self, folder: Path, header: CacheHeader, clips: Sequence[CachedClip]) -> None:
        self.folder = folder
        self.header = header
        self._clips = clips

    @classmethod
    def open(cls, folder: str | os.PathLike[str], expect: CacheHeader | None = None) -> "LatentCache":
        """Return the cache in `folder`.

        Raises:
            FileError: There is none, it is damaged, or not all of its clips are prepared.
            MismatchError: It is not what was expected: another VAE, other clips, another size; each is named.
        """
        place = Path(folder).expanduser()
        header, num_clips = read_header(place)
        if expect is not None:
            check_header(place, header, expect)
        return cls(place, header, read_index(place, num_clips))

    @staticmethod
    def is_one(path: str | os.PathLike[str]) -> bool:
        """Return whether there is a latent cache at `path`, complete or not."""
        return (Path(path).expanduser() / HEADER).is_file()

    def require(self, **expected: Any) -> None:
        """Raise `MismatchError` where fields of the header are not as expected: `require(vae=…, width=256)`."""
        check_header(self.folder, self.header, replace(self.header, **expected))

    @property
    def name(self) -> str:
        """Return what it is called in messages."""
        return str(self.folder)

    def __len__(self) -> int:
        return len(self._clips)

    def item(self, index: int) -> ClipItem:
        """Return a clip's key and caption."""
        return ClipItem(self._clips[index].key, self._clips[index].caption)

    def num_frames(self, index: int) -> int:
        """Return how many frames of a clip are cached."""
        return self._clips[index].num_frames

    def fps(self, index: int) -> float:
        """Return the rate of the cached frames, in frames per second."""
        return self._clips[index].fps

    def size(self, index: int) -> Size:
        """Return a clip's width and height in pixels; all clips have one size unless there are buckets."""
        return self._clips[index].width, self._clips[index].height

    def moments(self, index: int, positions: Sequence[int]) -> tuple[Moments, Moments]:
        """Return mean and log-variance of those frames, any order, as they are stored: not scaled, in the cache's dtype.

        Only the stretch of the file from the first to the last of them is read. Raises `FileError` for a damaged file
        or a frame beyond the clip's end.
        """
        clip = self._clips[index]
        first, last = min(positions), max(positions)
        if first < 0 or last >= clip.num_frames:
            raise FileError(
                f"{self.folder}: frame {last if first >= 0 else first} of {clip.key} was asked for, but the cache has "
                f"{clip.num_frames} frames of it."
            )
        path = clip_path(self.folder, clip.number)
        chosen = torch.tensor([position - first for position in positions])
        try:
            with safe_open(str(path), framework="pt") as file:
                mean, logvar = (file.get_slice(name)[first : last + 1][chosen] for name in ("mean", "logvar"))
        except (SafetensorError, OSError, IndexError) as error:
            raise damaged(path, error) from error
        return mean, logvar
