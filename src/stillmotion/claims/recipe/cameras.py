"""The MotionLoRAs of the eight camera motions (paper §4.3), trained as everyone trains theirs: `data prepare`, `train`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from stillmotion.claims.recipe.config import RecipeConfig
from stillmotion.claims.recipe.jobs import latents_of, trained, usual
from stillmotion.data import CAMERA_MOTIONS
from stillmotion.toyworld import brought_file
from stillmotion.training import TrainConfig
from stillmotion.training.loop import StepDone

RANK = 4
ROLL_RANK = 24
"""In a roll what is on the left goes up and what is on the right goes down; at a lower rank that is hardly learnt."""
ROLL_DEGREES = 45.0
"""Rolled by 30, the clips that are made turn by 6, which their noise may hide."""
CLIPS_PER_STEP = 1
TIMESTEP_BIAS = 2.0
"""Where a clip is mostly noise it is settled how the camera goes; afterwards motion is copied from what is there."""
STEADY = 0.3
"""Share of the steps after which the rate falls: one clip a step says little, and what is learnt shows in the fall."""
DECAY = 0.25
"""Keeps a LoRA small, so that it can be added to another one; not a roll's, which hardly comes out then."""


@dataclass(frozen=True, kw_only=True)
class Filmed:
    """What a MotionLoRA of a camera motion is trained with."""

    motion: str
    """The camera motion's name."""
    amount: float | None = None
    """How far it goes in its clips; as far as such a motion does unless told."""
    num_clips: int | None = None
    """How many clips of it are drawn; the recipe's number unless told."""
    rank: int = RANK
    """The LoRA's rank."""

    @property
    def asked(self) -> str:
        """The motion as it is asked for, "zoom-in" or "roll-clockwise:45"."""
        return self.motion if self.amount is None else f"{self.motion}:{self.amount:g}"

    @property
    def rolls(self) -> bool:
        """Whether it is a roll."""
        return CAMERA_MOTIONS[self.motion].field == "roll"


CAMERAS: Mapping[str, Filmed] = MappingProxyType(
    {
        name: Filmed(motion=name, amount=ROLL_DEGREES, rank=ROLL_RANK) if known.field == "roll" else Filmed(motion=name)
        for name, known in CAMERA_MOTIONS.items()
    }
)
"""The eight camera motions, by the names of their stages."""

FEWER: Mapping[str, Filmed] = MappingProxyType(
    {
        "zoom-in-of-5": Filmed(motion="zoom-in", num_clips=5),
        "zoom-in-of-20": Filmed(motion="zoom-in", num_clips=20),
        "zoom-in-rank-2": Filmed(motion="zoom-in", rank=2),
    }
)
"""One motion learnt from fewer clips and at a lower rank, for as many steps (the paper varies both)."""


def train_camera(config: RecipeConfig, name: str) -> Iterator[StepDone]:
    """Train one of `CAMERAS` or `FEWER`, over the recipe's motion module."""
    filmed = {**CAMERAS, **FEWER}[name]
    weights, folder = Path(config.folder) / "weights", Path(config.folder) / "cameras"
    count = filmed.num_clips or config.camera_clips
    job = TrainConfig(
        stage="motion_lora",
        data=latents_of(
            config, f"toyworld:{count}:{filmed.asked}", folder / f"{filmed.asked.replace(':', '-')}-{count}-latents"
        ),
        output_dir=folder / name,
        motion=str(weights / "motion" / "v3_toyworld_mm.safetensors"),
        rank=filmed.rank,
        num_steps=config.camera_steps,
        batch_size=CLIPS_PER_STEP,
        optimizer="muon",
        muon_rate=config.camera_rate,
        muon_decay=0.0 if filmed.rolls else DECAY,
        timestep_bias=TIMESTEP_BIAS,
        dialects=("stillmotion",),
        **usual(config) | {"decay_from": STEADY},
    )
    yield from trained(job, brought_file("motion_loras", name, weights))
