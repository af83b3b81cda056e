"""What steers a prediction beside the prompt: ControlNet, T2I-Adapter, IP-Adapter, SparseCtrl, each one part of one
denoiser. Their contributions are summed, so that any of them act together.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

Images = Float[Tensor, "images channels rows columns"]
Rows = Float[Tensor, "images tokens features"]


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where in the job a prediction is asked for."""

    frames: Sequence[int]
    """Which frames of the clip the latents are, in order: all of them, or those of a context window."""
    progress: float = 0.0
    """The share of the steps that is done, from 0 up to but not 1."""
    guided: bool = False
    """Whether the first half of the batch is the one without the prompt."""
    beside: Mapping[str, Any] = field(default_factory=dict)
    """What the UNet is told beside the text's tokens (`Text.arguments`), which a ControlNet of its family is told, too."""


@dataclass(frozen=True, kw_only=True)
class Steering:
    """What controls add to one forward of the UNet, in its own words; one row per image, frames of a clip adjacent."""

    down: tuple[Tensor, ...] = ()
    """Residuals of the skip connections, as many as the UNet has (ControlNet, SparseCtrl)."""
    mid: Tensor | None = None
    """The residual of the mid block."""
    within: tuple[Tensor, ...] = ()
    """Features added within the way down, one per block (T2I-Adapter)."""
    image_embeds: tuple[Tensor, ...] = ()
    """Features of pictures, one tensor per IP-Adapter in the UNet."""

    def __add__(self, other: "Steering") -> "Steering":
        """Return both at once: residuals summed, the pictures of both."""
        mids = [mid for mid in (self.mid, other.mid) if mid is not None]
        return Steering(
            down=_summed(self.down, other.down),
            mid=mids[0] + mids[1] if len(mids) == 2 else next(iter(mids), None),
            within=_summed(self.within, other.within),
            image_embeds=self.image_embeds + other.image_embeds,
        )

    def arguments(self) -> dict[str, Any]:
        """Return what the UNet's forward is called with."""
        found: dict[str, Any] = {}
        if self.down:
            found["down_block_additional_residuals"] = self.down
        if self.mid is not None:
            found["mid_block_additional_residual"] = self.mid
        if self.within:
            # A copy, since the UNet takes them off the list one by one.
            found["down_intrablock_additional_residuals"] = list(self.within)
        if self.image_embeds:
            found["added_cond_kwargs"] = {"image_embeds": list(self.image_embeds)}
        return found


@runtime_checkable
class Control(Protocol):
    """One control of a clip, at its strength, for as long as it acts."""

    def __call__(self, images: Images, timesteps: Tensor, text: Rows, moment: Moment) -> Steering | None:
        """Return what it adds for noisy `images` at this moment; None where it does not act, and then it costs nothing.

        Args:
            images: The UNet's input, in image layout: the frames `moment.frames` of every clip of the batch.
            timesteps: One for all, or one per image.
            text: Features of the prompts, one set of rows per image.
            moment: Which frames, how far the sampling is, and whether the batch has two halves.
        """


def steering(
    controls: Iterable[Control], images: Images, timesteps: Tensor, text: Rows, moment: Moment
) -> Steering | None:
    """Return what all controls add together; None where none acts."""
    total: Steering | None = None
    for control in controls:
        if (added := control(images, timesteps, text, moment)) is not None:
            total = added if total is None else total + added
    return total


def _summed(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    if not one or not other:
        return one or other
    return tuple(a + b for a, b in zip(one, other, strict=True))
