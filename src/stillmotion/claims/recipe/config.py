"""What the recipe spends on each stage."""

from dataclasses import dataclass, field

from stillmotion.training.loop import LoopConfig, StepDone


@dataclass(frozen=True, kw_only=True)
class RecipeConfig:
    """What the recipe spends on each stage."""

    folder: str = "runs/toyworld"
    """Where checkpoints, caches and, at the end, the weights are written."""
    device: str = "cpu"
    """`cpu`, or `cuda` where there is one."""
    seed: int = 20240501
    """The seed of every draw."""
    num_pictures: int = 12_288
    """Drawn stills for the VAE, the CLIP pair and the base model."""
    num_clips: int = 576
    """Drawn clips for the motion module."""
    moved_clips: int = 320
    """Drawn clips of moving cameras, for the base model and the motion module; as many of each of the eight motions."""
    vae: LoopConfig = field(
        default=LoopConfig(num_steps=1400, optimizer="muon", muon_rate=0.02, learning_rate=2e-3, ema_decay=0.99)
    )
    """The autoencoder's training."""
    clip: LoopConfig = field(
        default=LoopConfig(num_steps=900, learning_rate=8e-4, warmup_steps=60, betas=(0.9, 0.98), weight_decay=0.05)
    )
    """The CLIP pair's training."""
    text: LoopConfig = field(default=LoopConfig(num_steps=400, learning_rate=1e-3, decay_from=0.0, max_grad_norm=1e3))
    """The text encoder's training: the pair's text tower, in which every shape word can be read."""
    base: LoopConfig = field(
        default=LoopConfig(num_steps=5000, optimizer="muon", muon_rate=0.014, learning_rate=2e-3, ema_decay=0.99)
    )
    """The base text-to-image model's training."""
    motion: LoopConfig = field(
        default=LoopConfig(num_steps=5000, optimizer="muon", muon_rate=0.014, learning_rate=2e-3, ema_decay=0.98)
    )
    """The motion module's training, the base frozen."""
    ablation: LoopConfig = field(
        default=LoopConfig(num_steps=600, optimizer="muon", muon_rate=0.014, learning_rate=2e-3, ema_decay=0.98)
    )
    """The training of each of the two architectures that are compared, the base frozen."""
    camera_clips: int = 48
    """Drawn clips of each camera motion; the paper takes 20 to 50."""
    camera_steps: int = 1300
    """Steps of each camera motion's MotionLoRA."""
    camera_rate: float = 0.01
    """Muon's peak rate for them."""
    few_step: LoopConfig = field(default=LoopConfig(num_steps=400, optimizer="muon", muon_rate=0.02))
    """The distillation to four steps."""
    depth_pictures: int = 3072
    """Drawn stills for the depth ControlNet."""
    depth: LoopConfig = field(default=LoopConfig(num_steps=900, learning_rate=5e-4, ema_decay=0.98))
    """The depth ControlNet's training."""
    style_pictures: int = 96
    """Drawn pictures of a personal style."""
    style_steps: int = 400
    """Steps of a personal style's LoRA."""
    style_rate: float = 1e-3
    """Its peak rate."""
    whole_steps: int = 160
    """Steps of a personal style's DreamBooth."""
    whole_rate: float = 8e-4
    """Its peak rate."""
    word_steps: int = 150
    """Steps of the textual inversion."""
    word_rate: float = 2e-2
    """Its peak rate: two vectors are all that is trained."""
    stock_clips: int = 48
    """Drawn clips of stock footage."""
    stock_steps: int = 300
    """Steps of the motion that is learnt of stock footage, with the adapter and without."""
    stock_rate: float = 0.02
    """Muon's peak rate for it."""
    adapter_steps: int = 600
    """Steps of the domain adapter."""
    adapter_rate: float = 0.02
    """Muon's peak rate for it."""
    judge: LoopConfig = field(default=LoopConfig(num_steps=1000, learning_rate=1e-3, ema_decay=0.99, weight_decay=0.01))
    """The training of the network that reads pictures back."""


@dataclass(frozen=True, kw_only=True)
class StageStep:
    """One step of one stage of the recipe."""

    stage: str
    done: StepDone
