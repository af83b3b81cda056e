"""The three stages of the paper as data: what each trains, over what, and what it takes by default."""

import re
from dataclasses import dataclass

from torch import nn

from stillmotion.motion import DomainAdapter, MotionLora
from stillmotion.training.config import StageName, TrainConfig

_PROJECTIONS = r"to_(q|k|v|out\.0)"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of training."""

    name: StageName
    layers: str | None
    """Which linear layers get a LoRA, as a pattern of their paths; None trains the motion module itself."""
    kind: type[MotionLora] | type[DomainAdapter] | None
    """What that LoRA is."""
    moves: bool
    """Whether a motion module is plugged in; without one a clip is single frames (Eq. 2, else Eq. 7)."""
    noise_schedule: str
    """Whose noise schedule: "model", the image model's own, or "motion", the motion module's."""
    num_steps: int
    learning_rate: float
    rank: int | None
    ema_decay: float

    def paths(self, unet: nn.Module) -> list[str]:
        """Return the paths of the layers that get a LoRA."""
        pattern = re.compile(self.layers or "$^")
        return [
            path for path, layer in unet.named_modules() if isinstance(layer, nn.Linear) and pattern.fullmatch(path)
        ]

    def settled(self, config: TrainConfig) -> TrainConfig:
        """Return the config with this stage's own values where none are given."""
        names = ("num_steps", "learning_rate", "rank", "ema_decay")
        return config.replace(**{name: getattr(self, name) for name in names if getattr(config, name) is None})


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            name="domain_adapter",
            layers=rf".*\.transformer_blocks\.\d+\.attn[12]\.{_PROJECTIONS}",
            kind=DomainAdapter,
            moves=False,
            noise_schedule="model",
            num_steps=10_000,
            learning_rate=1e-4,
            rank=16,
            ema_decay=0.0,
        ),
        Stage(
            name="motion_module",
            layers=None,
            kind=None,
            moves=True,
            noise_schedule="motion",
            num_steps=100_000,
            learning_rate=1e-4,
            rank=None,
            ema_decay=0.999,
        ),
        # Rank 64 in half precision is 36 MB at Stable Diffusion 1.5's size; the paper's are about 30 MB (§4.3).
        Stage(
            name="motion_lora",
            layers=rf".*\.motion_modules\.\d+\.transformer_blocks\.\d+\.attn[12]\.{_PROJECTIONS}",
            kind=MotionLora,
            moves=True,
            noise_schedule="motion",
            num_steps=2000,
            learning_rate=1e-4,
            rank=64,
            ema_decay=0.0,
        ),
    )
}
FINE_TUNING_RATE = 1e-5
"""The default rate of a motion module that starts from a file: at the rate of a new one it forgets how to move."""
