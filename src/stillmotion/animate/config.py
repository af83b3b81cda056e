"""What can be said about a clip that is to be made. The command line, YAML and the Studio read their fields here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from stillmotion.config import AdapterFile, Config, Limits
from stillmotion.data import ClipFormat
from stillmotion.motion import VARIANTS
from stillmotion.sampling import SamplerName

TOYWORLD = "toyworld"
"""The model name that means the tiny weights inside the package."""

DTYPES = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class AnimateConfig(Config):
    """One job of making clips: what is seen, by which model, how it moves, and where it goes."""

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

    motion: str | None = None
    """The motion module, in any dialect; "toyworld" brings its own."""

    variant: Annotated[str | None, Limits(choices=tuple(VARIANTS))] = None
    """Which variant the motion module is, where its file does not say."""

    motion_norm: Literal["per_frame", "across_frames"] | None = None
    """What the motion module's norm pools over; `across_frames` for what diffusers trained, else the variant's own."""

    motion_loras: tuple[AdapterFile, ...] = ()
    """MotionLoRAs, each a file or file:strength."""

    domain_adapter: AdapterFile | None = None
    """The domain adapter that the motion module was trained with, a file or file:strength; 0 leaves it out."""

    num_frames: Annotated[int, Limits(minimum=1)] = 16
    """How many frames the clip has."""

    width: Annotated[int | None, Limits(minimum=8, maximum=8192, multiple_of=8)] = None
    """Width in pixels; the model's own by default."""

    height: Annotated[int | None, Limits(minimum=8, maximum=8192, multiple_of=8)] = None
    """Height in pixels; the model's own by default."""

    num_inference_steps: Annotated[int, Limits(minimum=1, maximum=1000)] = 25
    """How many denoising steps are taken."""

    guidance_scale: Annotated[float | None, Limits(minimum=0, maximum=100)] = None
    """How strongly the prompt is followed; 1 is no guidance; 7.5 by default, 5 for the toyworld."""

    sampler: SamplerName = "ddim"
    """How the noise is taken away, step by step."""

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
