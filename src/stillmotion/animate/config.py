"""What can be said about a clip that is to be made. The command line, YAML and the Studio read their fields here."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from stillmotion.config import AdapterFile, Config, ControlFile, EmbeddingFile, Limits
from stillmotion.data import ClipFormat
from stillmotion.motion import VARIANTS
from stillmotion.sampling import BlendName, FilterName, FusionName, NoiseName, SamplerName

TOYWORLD = "toyworld"
"""The model name that means the tiny weights inside the package."""

STEPS, SAMPLER = 25, "ddim"
"""How motion modules are sampled that were not distilled to few steps."""

DTYPES = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class AnimateConfig(Config):
    """One job of making clips: what is seen, by which model, how it moves, and where it goes."""

    prompt: Annotated[str, Limits(blank=False)]
    """What the clip shows, in words."""

    negative_prompt: str = ""
    """What it is led away from."""

    prompt_map: Annotated[Mapping[int, str], Limits(blank=False)] = field(default_factory=dict)
    """Where the prompt travels, {frame: text}; -1 is the last frame, and the prompt itself is what frame 0 shows."""

    negative_map: Mapping[int, str] = field(default_factory=dict)
    """Where the negative prompt travels, {frame: text}."""

    head_prompt: str = ""
    """What stands before every text of the prompt."""

    tail_prompt: str = ""
    """What stands behind every text of the prompt."""

    hold_ratio: Annotated[float, Limits(minimum=0, maximum=1)] = 0.0
    """The share of the way to the next text in which a text holds, before it blends; 1 changes at once."""

    prompt_blend: BlendName = "linear"
    """How two texts are blended: on a straight line between their features, or on a great circle."""

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

    controls: tuple[ControlFile, ...] = ()
    """What steers, ControlNet to SparseCtrl, each MODEL=SOURCE:STRENGTH@OPTION: canny.safetensors=dance.mp4:0.8@canny@0-0.5."""

    image: Path | None = None
    """A picture that the clip begins with: a SparseCtrl RGB's among the controls, else where the frames are drawn from."""

    last_image: Path | None = None
    """A picture that the clip ends with, in the same way."""

    video: Path | None = None
    """A video or a folder of frames that is drawn anew, cut to the clip's length."""

    denoise: Annotated[float | None, Limits(minimum=0, maximum=1)] = None
    """The share of the steps in which video or image are drawn anew; 0.75 by default, less keeps more of them."""

    motion_lora_strengths: tuple[float | Mapping[int, float], ...] = ()
    """Each MotionLoRA's strength over the clip, a number or {frame: number}, times the one of its file."""

    motion_strength: Annotated[float | Mapping[int, float], Limits(minimum=0, maximum=10)] = 1.0
    """How much it moves, a number or {frame: number}; 1 as trained, 0 makes a picture of every frame."""

    num_frames: Annotated[int, Limits(minimum=1)] = 16
    """How many frames the clip has."""

    loop: Literal["open", "closed"] = "open"
    """Whether the last frame flows into the first."""

    context: Literal["static", "uniform", "looped", "inside"] | None = None
    """How windows lie over a long clip; inside shows all frames at once and looks through windows within; static by default."""

    context_length: Annotated[int | None, Limits(minimum=1)] = None
    """Frames of a window; 16 by default, or as many as the motion module has positions for."""

    context_overlap: Annotated[int | None, Limits(minimum=0)] = None
    """Frames that neighbouring windows share; a quarter of a window by default, three quarters inside."""

    context_dilation: Annotated[int, Limits(minimum=1)] = 1
    """The widest step between frames of a window, for uniform and looped: 4 adds windows of every 2nd and 4th frame."""

    context_fusion: FusionName = "pyramid"
    """How much each place of a window counts where windows overlap."""

    noise: NoiseName = "independent"
    """Whether each frame has its own noise, or windows have the same again, in order or shuffled."""

    freeinit_passes: Annotated[int, Limits(minimum=1, maximum=20)] = 1
    """How often the clip is sampled, each time from noise with the slow parts of the last (FreeInit); 1 is once."""

    freeinit_filter: FilterName = "butterworth"
    """The shape of the filter that tells slow parts from fast ones."""

    freeinit_spatial: Annotated[float, Limits(minimum=0, maximum=1)] = 0.25
    """Up to which share of the highest frequency in space a part is slow."""

    freeinit_temporal: Annotated[float, Limits(minimum=0, maximum=1)] = 0.25
    """Up to which share of the highest frequency in time a part is slow."""

    width: Annotated[int | None, Limits(minimum=8, maximum=8192, multiple_of=8)] = None
    """Width in pixels; the model's own by default."""

    height: Annotated[int | None, Limits(minimum=8, maximum=8192, multiple_of=8)] = None
    """Height in pixels; the model's own by default."""

    upscale: Annotated[float, Limits(minimum=1, maximum=4)] = 1.0
    """How many times wider and higher the clip is made by a second pass, which draws it anew; 1 is none."""

    upscale_denoise: Annotated[float | None, Limits(minimum=0, maximum=1)] = None
    """The share of the steps that the second pass takes; 0.5 by default, less keeps more of the first."""

    num_inference_steps: Annotated[int | None, Limits(minimum=1, maximum=1000)] = None
    """How many denoising steps are taken; 25 by default, or as many as the motion module was distilled to."""

    guidance_scale: Annotated[float | Mapping[int, float] | None, Limits(minimum=0, maximum=100)] = None
    """How strongly the prompt is followed, a number or {frame: number}; 1 is none; the motion module's own by default."""

    sampler: SamplerName | None = None
    """How the noise is taken away, step by step; ddim by default, or what the motion module was made for."""

    noise_schedule: Literal["linear", "scaled_linear"] | None = None
    """How noise grows over the timesteps; by default as the motion module was trained, and any other costs quality."""

    seed: Annotated[int | None, Limits(as_text=True)] = None
    """Where the noise comes from, an integer of any size; drawn and recorded if not given."""

    num_clips: Annotated[int, Limits(minimum=1)] = 1
    """How many clips are made, each with the seed after the last one's."""

    fps: Annotated[float, Limits(minimum=0.1, maximum=240)] = 8.0
    """Frames per second that the clip plays at."""

    interpolate: Annotated[int, Limits(minimum=1, maximum=8)] = 1
    """How many frames each becomes, the others between it and the next and the rate as much higher; 1 puts none in between."""

    formats: tuple[ClipFormat, ...] = ("mp4", "gif")
    """What the clip is written as; png is a folder of frames."""

    output_dir: Path | None = None
    """Where a folder for the run is made, outputs on the command line; without it the clip stays in memory."""

    state_every: Annotated[float | None, Limits(minimum=0)] = 30.0
    """Seconds of work after which the state is kept on disk again, for replay --resume; 0 keeps every step, none nothing."""

    decode_chunk: Annotated[int | None, Limits(minimum=1)] = None
    """How many frames the VAE decodes at once; by default as many as make one 512x512 picture."""

    device: Annotated[str, Limits(blank=False)] = "auto"
    """Where it is computed: cpu, cuda, cuda:1, mps, or auto for the best there is."""

    offload: bool = False
    """Whether models wait in the computer's memory while they do not compute: less of a GPU's is taken, for more time."""

    dtype: DTYPES = "auto"
    """How numbers are held; auto takes what the device is fast at, float32 for the toyworld."""

    def check(self) -> None:
        """Refuse what cannot travel over the clip, be seen in windows, be enlarged, or have frames in between."""
        from stillmotion.animate.script import check_script  # noqa: PLC0415  # it reads this class
        from stillmotion.animate.upscaling import check_between, check_upscale  # noqa: PLC0415  # they too

        check_script(self)
        check_upscale(self)
        check_between(self)
