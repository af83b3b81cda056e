"""What every training is told, whatever it trains: how long, how fast, on what machine, and where it goes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from stillmotion.config import Config, Limits
from stillmotion.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class RunConfig(Config):
    """What the one loop, its folder and its machine need to know."""

    output_dir: Path
    """The run's folder: checkpoints, metrics, samples and, at the end, the trained files. A run in it goes on."""

    model: Annotated[str, Limits(blank=False)] = "toyworld"
    """The text-to-image model: a diffusers folder, a single file, a hub id, or "toyworld"."""

    vae: str | None = None
    """Another VAE than the model's own: a folder or a file."""

    width: Annotated[int | None, Limits(minimum=8, multiple_of=8)] = None
    """Width in pixels; by default a cache's own, the toyworld's own for its models, else 256."""

    height: Annotated[int | None, Limits(minimum=8, multiple_of=8)] = None
    """Height in pixels; as the width by default."""

    num_steps: Annotated[int | None, Limits(minimum=1)] = None
    """Optimizer steps in all."""

    batch_size: Annotated[int, Limits(minimum=1)] = 4
    """Clips, or pictures, of an optimizer step."""

    micro_batch_size: Annotated[int | None, Limits(minimum=1)] = None
    """How many are computed at once; gradients of the parts of a batch add up. The whole batch by default."""

    learning_rate: Annotated[float | None, Limits(minimum=0)] = None
    """AdamW's peak rate."""

    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon` moves every matrix at one rate, whatever the size of its gradient, and the rest as AdamW does."""

    muon_rate: Annotated[float, Limits(minimum=0)] = 0.02
    """Muon's peak rate."""

    muon_decay: Annotated[float, Limits(minimum=0)] = 0.0
    """Muon's decoupled weight decay. It moves matrices as far whatever the gradient says; what is noise wears off again."""

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
    """Share of clips, or pictures, whose caption is left empty, so that guidance has something to go away from."""

    snr_gamma: Annotated[float | None, Limits(minimum=0)] = None
    """Min-SNR weighting of timesteps (Hang et al. 2023); 5 is usual, none weighs all alike."""

    timestep_bias: Annotated[float, Limits(minimum=1, maximum=8)] = 1.0
    """How much oftener noisy timesteps are drawn, where motion is laid out: 1 draws all alike, and at 2, 3, 4 half of the
    draws are from the noisiest quarter, eighth, sixteenth of them."""

    noise_offset: Annotated[float, Limits(minimum=0)] = 0.0
    """How much of one random level per clip and channel is added to the noise."""

    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """What the models compute in; what is trained is kept in float32, and float16 scales the loss."""

    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, more time."""

    checkpoint_every: Annotated[int, Limits(minimum=1)] = 200
    """Steps between checkpoints; the newest two are kept."""

    validate_every: Annotated[int, Limits(minimum=1)] = 200
    """Steps between validations: fixed clips, fixed noise, eight timesteps."""

    sample_every: Annotated[int | None, Limits(minimum=1)] = None
    """Steps between samples; none are made by default."""

    sample_prompts: tuple[str, ...] = ()
    """What the samples show; the captions of the first clips by default."""

    save_dtype: Literal["float16", "float32"] = "float16"
    """How the numbers of the trained files are held."""

    licence: str | None = None
    """The licence of the trained files, written into them."""

    num_workers: Annotated[int, Limits(minimum=0, maximum=64)] = 0
    """Threads that read ahead."""

    seed: Annotated[int, Limits(as_text=True)] = 0
    """Where order, crops, timesteps and noise come from, an integer of any size."""

    device: Annotated[str, Limits(blank=False)] = "auto"
    """Where it is computed: cpu, cuda, cuda:1, mps, or auto for the best there is."""

    def refuse(self, *rules: tuple[object, str]) -> None:
        """Raise one `ConfigError` of all that is broken: pairs of what is wrong, if it is, and its message."""
        parts = self.micro_batch_size or 1
        undivided = f"micro_batch_size: expected a divisor of batch_size {self.batch_size}, got {parts}"
        if problems := [said for broken, said in (*rules, (self.batch_size % parts, undivided)) if broken]:
            raise ConfigError("\n".join(problems))
