"""What ends a fine-tuning that unlearns how to move: on a few clips a module loses that long before its loss says so."""

from dataclasses import dataclass

from stillmotion.errors import StillmotionError
from stillmotion.training.denoising import Validation


class MotionDied(StillmotionError):
    """A fine-tuning has unlearnt how to move; the checkpoints before it are kept."""


@dataclass(frozen=True)
class Guard:
    """Tells when a fine-tuning has unlearnt how to move, as users of the reference's rate find after some 40 steps."""

    before: Validation
    """What it began with."""
    least: float
    """The share of that motion which must be left."""

    def verdict(self, now: Validation) -> str:
        """Return what is wrong; nothing while there is motion enough, or where there was none to lose."""
        before = self.before.motion or 0.0
        if before <= 0 or now.motion is None or now.motion >= self.least * before:
            return ""
        return (
            f"the motion of the validation clips fell to {now.motion:.3f} from {before:.3f}, below motion_guard "
            f"({self.least:g}) of it"
        )
