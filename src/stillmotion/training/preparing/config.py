"""What can be said about the filling of a latent cache."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from stillmotion.config import Config, Limits
from stillmotion.errors import ConfigError

TOYWORLD = "toyworld"
TOYWORLD_SIDE, USUAL_SIDE = 128, 256

Dtype = Literal["float16", "bfloat16", "float32"]


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(Config):
    """One latent cache: of which clips, by whose VAE, what is kept of them, and by how many processes."""

    source: Annotated[str, Limits(blank=False)]
    """The clips: a folder, a folder with metadata, a CSV of videoids, tar shards, one clip, or "toyworld:COUNT:WHAT"."""

    out: Path
    """The cache: a new folder, or one to be gone on with."""

    video_folder: Path | None = None
    """Where the files of a CSV of videoids lie."""

    model: Annotated[str, Limits(blank=False)] = TOYWORLD
    """The image model whose VAE encodes: a diffusers folder, a single file, a hub id, or "toyworld"."""

    vae: str | None = None
    """Another VAE than the model's own: a folder or a file."""

    device: Annotated[str, Limits(blank=False)] = "auto"
    """Where it is computed: cpu, cuda, cuda:1, mps, or auto for the best there is."""

    vae_dtype: Dtype = "float32"
    """How the VAE computes."""

    batch: Annotated[int, Limits(minimum=1)] = 8
    """Frames that are encoded at once."""

    width: Annotated[int | None, Limits(minimum=8, maximum=8192, multiple_of=8)] = None
    """Width in pixels; by default 128 for the toyworld's VAE, else 256."""

    height: Annotated[int | None, Limits(minimum=8, maximum=8192, multiple_of=8)] = None
    """Height in pixels; as the width by default."""

    buckets: bool = False
    """Whether clips keep about their own shape, in the same area."""

    keep_every: Annotated[int, Limits(minimum=1)] = 1
    """Of how many frames one is cached."""

    dtype: Dtype = "float16"
    """How the latents are stored."""

    workers: Annotated[int, Limits(minimum=1)] = 1
    """Processes that are started on this machine."""

    worker: tuple[int, int] | None = None
    """Which share this process does, and of how many, counted from 0; by default what torchrun says, else all."""

    def check(self) -> None:
        """Refuse a share that there is not, and one process that would be several."""
        if self.worker is None:
            return
        number, count = self.worker
        if not 0 <= number < count:
            raise ConfigError(f"worker: expected a number from 0 to {count - 1}, got {number}")
        if self.workers > 1:
            raise ConfigError("worker: it names the one share that this process does; leave workers out")

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height in pixels."""
        side = TOYWORLD_SIDE if self.model == TOYWORLD else USUAL_SIDE
        return self.width or side, self.height or side
