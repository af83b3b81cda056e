"""What can be said about a training. The command line, YAML and Python read their fields here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from stillmotion.config import AdapterFile, Config, Limits
from stillmotion.errors import ConfigError
from stillmotion.motion import VARIANTS
from stillmotion.motion.architectures import ArchitectureName

StageName = Literal["domain_adapter", "motion_module", "motion_lora"]
Dialect = Literal["stillmotion", "original", "diffusers", "comfyui"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Config):
    """One training: which stage of the paper, on which clips, from which models, how long, and where it goes."""

    stage: StageName
    """What is trained: domain_adapter (paper 4.1), motion_module (4.2) or motion_lora (4.3)."""

    data: Annotated[str, Limits(blank=False)]
    """The clips: a folder, a WebVid CSV, a folder with metadata, tar shards, a latent cache, or "toyworld:COUNT:WHAT"."""

    output_dir: Path
    """The run's folder: checkpoints, metrics, samples and, at the end, the trained files. A run in it goes on."""

    video_folder: Path | None = None
    """Where the videos of a WebVid CSV are."""

    caption: str | None = None
    """One caption for all clips, in place of their own."""

    model: Annotated[str, Limits(blank=False)] = "toyworld"
    """The text-to-image model, frozen: a diffusers folder, a single file, a hub id, or "toyworld"."""

    vae: str | None = None
    """Another VAE than the model's own: a folder or a file."""

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

    width: Annotated[int | None, Limits(minimum=8, multiple_of=8)] = None
    """Width in pixels; by default a cache's own, the toyworld's own for its models, else 256."""

    height: Annotated[int | None, Limits(minimum=8, multiple_of=8)] = None
    """Height in pixels; as the width by default."""

    short_clips: Literal["skip", "loop", "stretch"] = "skip"
    """What happens to a clip that is shorter than a training clip."""

    buckets: bool = False
    """Whether clips keep about their own shape, from 1:2 to 2:1, at the area of width and height; a cache knows its own."""

    horizontal_flip: bool = False
    """Whether half of the clips are mirrored; refused where captions or a directional motion would lie."""

    rank: Annotated[int | None, Limits(minimum=1, maximum=1024)] = None
    """Rank of a domain adapter or a MotionLoRA."""

    num_steps: Annotated[int | None, Limits(minimum=1)] = None
    """Optimizer steps in all."""

    batch_size: Annotated[int, Limits(minimum=1)] = 4
    """Clips of an optimizer step."""

    micro_batch_size: Annotated[int | None, Limits(minimum=1)] = None
    """Clips computed at once; gradients of the parts of a batch add up. The whole batch by default."""

    learning_rate: Annotated[float | None, Limits(minimum=0)] = None
    """AdamW's peak rate."""

    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay rates of the first and second moment."""

    weight_decay: Annotated[float, Limits(minimum=0)] = 0.01
    """AdamW's decoupled weight decay."""

    warmup_steps: Annotated[int, Limits(minimum=0)] = 20
    """Steps over which the rate rises from zero."""

    decay_from: Annotated[float, Limits(minimum=0, maximum=1)] = 1.0
    """Share of the steps after which the rate falls in a line to zero; 1 keeps it."""

    max_grad_norm: Annotated[float, Limits(minimum=0)] = 1.0
    """The gradient is scaled down to this norm."""

    ema_decay: Annotated[float | None, Limits(minimum=0, maximum=1)] = None
    """Decay per step of the average of the weights that is written at the end; 0 keeps none."""

    caption_dropout: Annotated[float, Limits(minimum=0, maximum=1)] = 0.1
    """Share of clips whose caption is left empty, so that guidance has something to go away from."""

    snr_gamma: Annotated[float | None, Limits(minimum=0)] = None
    """Min-SNR weighting of timesteps (Hang et al. 2023); 5 is usual, none weighs all alike."""

    noise_offset: Annotated[float, Limits(minimum=0)] = 0.0
    """How much of one random level per clip and channel is added to the noise."""

    appearance_debias: Annotated[float, Limits(minimum=0)] = 0.0
    """Weight of MotionDirector's appearance-debiased loss, for MotionLoRAs; 0 leaves it out."""

    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the models compute in; what is trained is kept in float32, and float16 scales the loss."""

    strategy: Literal["ddp", "fsdp"] = "ddp"
    """How several processes share the work: each with all that is trained, or each with a part of it."""

    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, more time."""

    checkpoint_every: Annotated[int, Limits(minimum=1)] = 200
    """Steps between checkpoints; the newest two are kept."""

    validate_every: Annotated[int, Limits(minimum=1)] = 200
    """Steps between validations: fixed clips, fixed noise, eight timesteps."""

    motion_guard: Annotated[float, Limits(minimum=0, maximum=1)] = 0.5
    """A fine-tuning ends where less than this share of the motion of the validation clips is left; 0 lets it go on."""

    sample_every: Annotated[int | None, Limits(minimum=1)] = None
    """Steps between sample clips; none are made by default."""

    sample_prompts: tuple[str, ...] = ()
    """What the sample clips show; the captions of the first clips by default."""

    dialects: tuple[Dialect, ...] | None = None
    """What the trained weights are written as; by default all that can hold them."""

    save_dtype: Literal["float16", "float32"] = "float16"
    """How the numbers of the trained files are held."""

    licence: str | None = None
    """The licence of the trained files, written into them."""

    num_workers: Annotated[int, Limits(minimum=0, maximum=64)] = 0
    """Threads that read clips ahead."""

    seed: Annotated[int, Limits(as_text=True)] = 0
    """Where order, crops, timesteps and noise come from, an integer of any size."""

    device: Annotated[str, Limits(blank=False)] = "auto"
    """Where it is computed: cpu, cuda, cuda:1, mps, or auto for the best there is."""

    def check(self) -> None:
        """Refuse what only several fields together make wrong."""
        adapter, module, lora = (self.stage == name for name in get_args(StageName))
        fsdp, parts = self.strategy == "fsdp", self.micro_batch_size or 1
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
                self.batch_size % parts,
                f"micro_batch_size: expected a divisor of batch_size {self.batch_size}, got {parts}",
            ),
            (
                lora and self.horizontal_flip,
                "horizontal_flip: a mirrored clip moves the other way; leave it off for a MotionLoRA",
            ),
            (fsdp and not module, "strategy: fsdp parts a motion module; a LoRA is small enough for ddp"),
            (fsdp and self.precision == "float16", "precision: fsdp computes in float32 or bfloat16"),
            (fsdp and self.buckets, "buckets: with fsdp all processes compute clips of one size; leave them off"),
        )
        if problems := [said for broken, said in rules if broken]:
            raise ConfigError("\n".join(problems))
