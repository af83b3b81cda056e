"""What can be said about a baseline's clip: what `animate` is told of any clip, and what the method alone knows."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from stillmotion.animate import AnimateConfig
from stillmotion.animate.config import DTYPES, TOYWORLD
from stillmotion.config import AdapterFile, Config, EmbeddingFile, Limits
from stillmotion.data import ClipFormat
from stillmotion.errors import ConfigError

OWN = frozenset({"guidance_scale", "num_inference_steps", "sampler"})
"""Fields of `animate` that travel there, or go by the motion module."""

_PAPER_STEPS, _PAPER_T0, _PAPER_T1 = 50, 44, 47


@dataclass(frozen=True, kw_only=True)
class BaselineConfig(Config):
    """A clip of any image model that no motion module moves; each field means what it means to `animate`."""

    method: ClassVar[str] = ""
    """What the command line calls it."""
    guidance: ClassVar[tuple[float, float]] = (7.5, 5.0)
    """The guidance by default: of the paper, and for the toyworld."""

    prompt: Annotated[str, Limits(blank=False)]
    """What the clip shows, in words."""

    negative_prompt: str = ""
    """What it is led away from."""

    model: Annotated[str, Limits(blank=False)] = TOYWORLD
    """The text-to-image model: a diffusers folder, a single .safetensors or .ckpt file, a hub id, or "toyworld"."""

    vae: str | None = None
    """Another VAE than the model's own: a folder or a file."""

    loras: tuple[AdapterFile, ...] = ()
    """LoRAs of the image model, each a file or file:strength."""

    embeddings: tuple[EmbeddingFile, ...] = ()
    """Textual inversions, each a file or word=file; in the prompt, the word or else the file's name stands for it."""

    custom_diffusion: tuple[AdapterFile, ...] = ()
    """Custom Diffusion weights with their new words, each a file, file:strength or the folder of the training."""

    allow_partial: tuple[str, ...] = ()
    """Names of LoRA and Custom Diffusion files that may fit in part; what does not is left out and said."""

    trigger_words: tuple[str, ...] = ()
    """Words that the model listens for, where no file says them; a prompt without them is told so."""

    clip_skip: Annotated[int, Limits(minimum=1)] = 1
    """Which of the text encoder's layers is read, from the end; 1 is the last, many drawing styles want 2."""

    num_frames: Annotated[int, Limits(minimum=1)] = 16
    """How many frames the clip has."""

    width: Annotated[int | None, Limits(minimum=8, maximum=8192, multiple_of=8)] = None
    """Width in pixels; the model's own by default."""

    height: Annotated[int | None, Limits(minimum=8, maximum=8192, multiple_of=8)] = None
    """Height in pixels; the model's own by default."""

    num_inference_steps: Annotated[int, Limits(minimum=1, maximum=1000)] = 25
    """How many denoising steps are taken."""

    guidance_scale: Annotated[float | None, Limits(minimum=0, maximum=100)] = None
    """How strongly the prompt is followed; 1 is no guidance; the paper's by default, 5 for the toyworld."""

    sampler: Literal["ddim", "ddim_trailing"] = "ddim"
    """How the noise is taken away, step by step; the methods are made for DDIM."""

    seed: Annotated[int | None, Limits(as_text=True)] = None
    """Where the noise comes from, an integer of any size; drawn and recorded if not given."""

    num_clips: Annotated[int, Limits(minimum=1)] = 1
    """How many clips are made, each with the seed after the last one's."""

    fps: Annotated[float, Limits(minimum=0.1, maximum=240)] = 8.0
    """Frames per second that the clip plays at."""

    formats: tuple[ClipFormat, ...] = ("mp4", "gif")
    """What the clip is written as; png is a folder of frames."""

    output_dir: Path | None = None
    """Where a folder for the run is made, outputs on the command line; without it the clip stays in memory."""

    decode_chunk: Annotated[int | None, Limits(minimum=1)] = None
    """How many frames the VAE decodes at once; by default as many as make one 512x512 picture."""

    device: Annotated[str, Limits(blank=False)] = "auto"
    """Where it is computed: cpu, cuda, cuda:1, mps, or auto for the best there is."""

    dtype: DTYPES = "auto"
    """How numbers are held; auto takes what the device is fast at, float32 for the toyworld."""

    def as_animate(self) -> AnimateConfig:
        """Return the job as `animate` would be told it: what is seen, by which model, and where it goes."""
        scale = self.guidance[self.model == TOYWORLD] if self.guidance_scale is None else self.guidance_scale
        shared = {field.name: getattr(self, field.name) for field in fields(BaselineConfig)}
        return AnimateConfig(**{**shared, "guidance_scale": scale})


@dataclass(frozen=True, kw_only=True)
class Text2VideoZeroConfig(BaselineConfig):
    """One job of Text2Video-Zero: the first frame's latents, shifted along, and redrawn with an eye on the first frame."""

    method: ClassVar[str] = "text2video-zero"

    motion_field_x: Annotated[float, Limits(minimum=-512, maximum=512)] = 12.0
    """How far each frame looks further right than the one before, in 512ths of the width: things move left by so much."""

    motion_field_y: Annotated[float, Limits(minimum=-512, maximum=512)] = 12.0
    """How far each frame looks further down than the one before, in 512ths of the height: things move up by so much."""

    t0: Annotated[int | None, Limits(minimum=0)] = None
    """How many steps are left after the one from which the first frame is shifted; 44 of 50 by default."""

    t1: Annotated[int | None, Limits(minimum=0)] = None
    """How many steps are left after the one from which all frames are denoised together; 47 of 50 by default."""

    frames_together: Annotated[int | None, Limits(minimum=2)] = None
    """How many frames are denoised at once, the first with all others; less memory, the same clip; all by default."""

    @property
    def times(self) -> tuple[int, int]:
        """Return (t0, t1) settled: at the paper's share of the steps, one step at least before each."""
        last = self.num_inference_steps - 1
        alone = max(1, round((_PAPER_STEPS - 1 - _PAPER_T1) / _PAPER_STEPS * (last + 1)))
        until_t0 = max(alone + 1, round((_PAPER_STEPS - 1 - _PAPER_T0) / _PAPER_STEPS * (last + 1)))
        t1 = max(last - alone, 0) if self.t1 is None else self.t1
        t0 = max(min(last - until_t0, t1), 0) if self.t0 is None else self.t0
        return t0, t1

    def check(self) -> None:
        """Refuse times that do not go with the steps."""
        t0, t1 = self.times
        if not 0 <= t0 <= t1 < self.num_inference_steps:
            raise ConfigError(
                f"t0: expected t0 <= t1 < num_inference_steps, which is {self.num_inference_steps}, got t0 {t0} and t1 {t1}"
            )


@dataclass(frozen=True, kw_only=True)
class TuneAVideoConfig(BaselineConfig):
    """One job of Tune-A-Video: an image model tuned on one clip, and a new clip that moves as that one does."""

    method: ClassVar[str] = "tune-a-video"
    guidance: ClassVar[tuple[float, float]] = (12.5, 5.0)

    video: Path
    """The clip that it is tuned on: a video, or a folder of frames."""

    video_prompt: Annotated[str, Limits(blank=False)]
    """What that clip shows, in words."""

    frame_stride: Annotated[int, Limits(minimum=1)] = 1
    """Source frames from one frame of the tuning clip to the next."""

    tuning_dir: Path | None = None
    """Where the tuning is kept: one that stopped goes on, a finished one is used again; without it each job tunes anew."""

    num_tuning_steps: Annotated[int, Limits(minimum=1)] = 500
    """Optimizer steps of the tuning."""

    learning_rate: Annotated[float, Limits(minimum=0)] = 3e-5
    """AdamW's rate in the tuning."""

    tuning_seed: Annotated[int, Limits(as_text=True)] = 33
    """Where timesteps and noise of the tuning come from, an integer of any size."""

    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass of the tuning: less memory, more time."""

    start: Literal["inverted", "noise"] = "inverted"
    """What the clip begins with: the tuning clip's own noise (DDIM inversion), the same for every seed, or the seed's."""

    spatial_norm: Literal["across_frames", "per_frame"] = "across_frames"
    """What the image model's norms pool over; the reference's whole clip, or each frame, as the image model was trained."""
