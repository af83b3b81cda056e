"""What can be said about a training. The command line, YAML and Python read their fields here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from stillmotion.config import AdapterFile, Limits
from stillmotion.motion import VARIANTS
from stillmotion.motion.architectures import ArchitectureName
from stillmotion.training.run_config import RunConfig

StageName = Literal["domain_adapter", "motion_module", "motion_lora"]
Dialect = Literal["stillmotion", "original", "diffusers", "comfyui"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """One training: which stage of the paper, on which clips, from which models, how long, and where it goes."""

    stage: StageName
    """What is trained: domain_adapter (paper 4.1), motion_module (4.2) or motion_lora (4.3)."""

    data: Annotated[str, Limits(blank=False)]
    """The clips: a folder, a WebVid CSV, a folder with metadata, tar shards, a latent cache, or "toyworld:COUNT:WHAT"."""

    video_folder: Path | None = None
    """Where the videos of a WebVid CSV are."""

    caption: str | None = None
    """One caption for all clips, in place of their own."""

    motion: str | None = None
    """The motion module to begin with, in any dialect; a MotionLoRA needs one, a motion module may start from none."""

    variant: Annotated[str | None, Limits(choices=tuple(VARIANTS))] = None
    """Which variant a new motion module is (v3 by default), or a file that does not say."""

    architecture: ArchitectureName | None = None
    """What a new motion module is made of: transformer by default, or temporal_conv, the paper's comparison."""

    domain_adapter: AdapterFile | None = None
    """A domain adapter that is at work, frozen, while motion is learnt: a file or file:strength."""

    num_frames: Annotated[int, Limits(minimum=1)] = 16
    """Frames of a training clip; a domain adapter learns from single frames."""

    frame_stride: Annotated[int, Limits(minimum=1)] = 4
    """Source frames from one frame of a training clip to the next."""

    short_clips: Literal["skip", "loop", "stretch"] = "skip"
    """What happens to a clip that is shorter than a training clip."""

    buckets: bool = False
    """Whether clips keep about their own shape, from 1:2 to 2:1, at the area of width and height; a cache knows its own."""

    horizontal_flip: bool = False
    """Whether half of the clips are mirrored; refused where captions or a directional motion would lie."""

    rank: Annotated[int | None, Limits(minimum=1, maximum=1024)] = None
    """Rank of a domain adapter or a MotionLoRA."""

    appearance_debias: Annotated[float, Limits(minimum=0)] = 0.0
    """Weight of MotionDirector's appearance-debiased loss, for MotionLoRAs; 0 leaves it out."""

    strategy: Literal["ddp", "fsdp"] = "ddp"
    """How several processes share the work: each with all that is trained, or each with a part of it."""

    motion_guard: Annotated[float, Limits(minimum=0, maximum=1)] = 0.5
    """A fine-tuning ends where less than this share of the motion of the validation clips is left; 0 lets it go on."""

    dialects: tuple[Dialect, ...] | None = None
    """What the trained weights are written as; by default all that can hold them."""

    def check(self) -> None:
        """Refuse what only several fields together make wrong."""
        adapter, module, lora = (self.stage == name for name in get_args(StageName))
        fsdp = self.strategy == "fsdp"
        rules = (
            (
                lora and self.motion is None and self.model != "toyworld",
                "motion: a MotionLoRA is trained for a motion module; give its file",
            ),
            (adapter and self.motion, "motion: a domain adapter is trained without a motion module; leave it out"),
            (adapter and self.domain_adapter, "domain_adapter: this is what the stage trains; leave it out"),
            (module and self.rank, "rank: a motion module is trained whole; leave it out"),
            (not module and self.architecture, "architecture: a motion module's; leave it out for a LoRA"),
            (not lora and self.appearance_debias, "appearance_debias: expected 0 where no MotionLoRA is trained"),
            (
                lora and self.horizontal_flip,
                "horizontal_flip: a mirrored clip moves the other way; leave it off for a MotionLoRA",
            ),
            (fsdp and not module, "strategy: fsdp parts a motion module; a LoRA is small enough for ddp"),
            (
                fsdp and self.optimizer == "muon",
                "optimizer: muon takes whole matrices, and fsdp parts them; take adamw",
            ),
            (fsdp and self.precision == "float16", "precision: fsdp computes in float32 or bfloat16"),
            (fsdp and self.buckets, "buckets: with fsdp all processes compute clips of one size; leave them off"),
        )
        self.refuse(*rules)
