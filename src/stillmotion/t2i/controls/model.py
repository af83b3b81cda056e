"""What every control model has, and every control that comes of it: a strength, and a share of the steps."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stillmotion.errors import ConfigError, MismatchError
from stillmotion.sampling.control import Control, Images, Moment, Rows, Steering

Kind = Literal["controlnet", "t2i_adapter", "ip_adapter", "sparse_control"]
Pictures = Float[Tensor, "frames 3 height width"]


@dataclass(frozen=True, kw_only=True)
class Dose:
    """How much of a control there is, and when."""

    strength: int | float = 1.0
    """What its contribution is multiplied by; 0 leaves it out."""
    start: int | float = 0.0
    """The share of the steps after which it begins."""
    end: int | float = 1.0
    """The share of the steps after which it acts no more."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.strength):
            raise ConfigError(f"strength is {self.strength}, expected a number such as 1.0.")
        if not 0 <= self.start < self.end <= 1:
            raise ConfigError(
                f"start is {self.start} and end is {self.end}: expected shares of the steps, 0 ≤ start < end ≤ 1."
            )

    def acts(self, progress: int | float) -> bool:
        """Return whether there is anything of it when `progress` of the steps is done."""
        return self.strength != 0 and self.start <= progress < self.end


class Dosed(ABC):
    """One control of a clip: a control model, set on its pictures. It computes nothing outside its dose."""

    def __init__(self, dose: Dose) -> None:
        self.dose = dose

    @torch.no_grad()
    def __call__(self, images: Images, timesteps: Tensor, text: Rows, moment: Moment) -> Steering | None:
        """Return what it adds for the noisy images at this moment; None outside its dose."""
        if not self.dose.acts(moment.progress):
            return None
        return self.steer(images, timesteps, text, moment)

    @abstractmethod
    def steer(self, images: Images, timesteps: Tensor, text: Rows, moment: Moment) -> Steering:
        """Return what it adds, its strength in it; see `sampling.control.Control`."""


class ControlModel(ABC):
    """A control model, loaded. It is set on pictures as often as wanted, and keeps nothing of them."""

    kind: ClassVar[Kind]
    """What it is, by its kind of file."""
    takes: ClassVar[Literal["picture", "latents"]] = "picture"
    """What it looks at: pictures as they are, or their latents, which it encodes by the image model's VAE itself."""
    sparse: ClassVar[bool] = False
    """Whether its pictures stand at single frames, `indices`; otherwise one is for all frames, or there is one for each."""

    def __init__(self, source: Path, files: Sequence[Path], variant: str | None = None) -> None:
        self.source, self.files, self.variant = source, tuple(files), variant

    def __str__(self) -> str:
        """Return its kind and its file."""
        return f"{self.kind}{f' ({self.variant})' if self.variant else ''} {self.source.name}"

    @property
    def at_each_step(self) -> Sequence[nn.Module]:
        """Return what it computes with whenever the UNet does."""
        return ()

    @property
    def at_first(self) -> Sequence[nn.Module]:
        """Return what it computes with once, on its pictures."""
        return ()

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Hold in the UNet whatever the model needs there, and leave the UNet as it was; most models need nothing."""
        yield

    def on(
        self,
        condition: Pictures,
        *,
        strength: int | float = 1.0,
        start: int | float = 0.0,
        end: int | float = 1.0,
        indices: Sequence[int] | None = None,
    ) -> Control:
        """Return the control that these pictures make of the model.

        Args:
            condition: Pictures in [0, 1], of the clip's size in pixels: one for all frames, or one for each.
            strength: What its contribution is multiplied by; 0 leaves it out, bit for bit.
            start: The share of the steps after which it begins.
            end: The share of the steps after which it acts no more.
            indices: For a SparseCtrl, the frames of the clip that the pictures are; by default the first ones.

        Raises:
            ConfigError: A number is out of range.
            MismatchError: Pictures and frames do not fit each other.
        """
        dose = Dose(strength=strength, start=start, end=end)
        if not len(condition):
            raise MismatchError(f"{self}: the condition holds no picture; give at least one.")
        if indices is not None and not self.sparse:
            raise MismatchError(
                f"{self} takes one picture for all frames, or one for each; only a SparseCtrl takes indices of frames."
            )
        return self.control(condition, dose, indices)

    @abstractmethod
    def control(self, condition: Pictures, dose: Dose, indices: Sequence[int] | None) -> Dosed:
        """Return the control for what `on` has checked."""


def rows_for(per_frame: Tensor, images: Tensor, moment: Moment) -> Tensor:
    """Return one row per image of a batch, from one for all frames or one for each frame of the clip.

    Raises:
        MismatchError: A frame is asked for that has none, or the images do not divide into such clips.
    """
    frames = list(moment.frames)
    if len(images) % len(frames):
        raise MismatchError(f"A batch of {len(images)} images does not divide into clips of {len(frames)} frames.")
    if len(per_frame) == 1:
        return per_frame.expand(len(images), *per_frame.shape[1:])
    if max(frames) >= len(per_frame):
        raise MismatchError(
            f"Frame {max(frames)} of the clip has no picture to be steered by: the condition has {len(per_frame)}. Give "
            "one for every frame, or a single one for all."
        )
    whole = frames == list(range(len(per_frame)))
    clip = per_frame if whole else per_frame[torch.tensor(frames, device=per_frame.device)]
    return clip.repeat(len(images) // len(frames), *(1 for _ in clip.shape[1:]))
