"""What takes up the look of the video data (paper §4.1), and motion that was learnt of such data with it and without.

The video data is the toyworld as stock footage, with a mark and blur. The motion that is learnt is a MotionLoRA over the
recipe's own motion module, which never saw the mark: it shows the same, in less time than a module of its own.
"""

from collections.abc import Iterator
from pathlib import Path

from stillmotion.claims.recipe.config import RecipeConfig
from stillmotion.claims.recipe.jobs import latents_of, trained, usual
from stillmotion.config import AdapterFile
from stillmotion.toyworld import brought_file
from stillmotion.training import TrainConfig
from stillmotion.training.loop import StepDone

ADAPTER_RANK, MOTION_RANK = 16, 4
FRAMES_PER_STEP, CLIPS_PER_STEP = 16, 1


def train_adapter(config: RecipeConfig) -> Iterator[StepDone]:
    """Train the domain adapter on single frames of the stock footage (paper Eq. 2), no motion module plugged in."""
    weights, folder = Path(config.folder) / "weights", Path(config.folder) / "stock"
    job = TrainConfig(
        stage="domain_adapter",
        data=_footage(config),
        output_dir=folder / "adapter",
        rank=ADAPTER_RANK,
        num_steps=config.adapter_steps,
        batch_size=FRAMES_PER_STEP,
        optimizer="muon",
        muon_rate=config.adapter_rate,
        dialects=("stillmotion",),
        **usual(config),
    )
    yield from trained(job, brought_file("domain_adapter", "stock", weights))


def train_on_stock(config: RecipeConfig, name: str, *, adapted: bool) -> Iterator[StepDone]:
    """Learn motion of the stock footage, the domain adapter in place (paper §4.1) or not."""
    weights, folder = Path(config.folder) / "weights", Path(config.folder) / "stock"
    adapter = AdapterFile(path=str(brought_file("domain_adapter", "stock", weights))) if adapted else None
    job = TrainConfig(
        stage="motion_lora",
        data=_footage(config),
        output_dir=folder / name,
        motion=str(weights / "motion" / "v3_toyworld_mm.safetensors"),
        domain_adapter=adapter,
        rank=MOTION_RANK,
        num_steps=config.stock_steps,
        batch_size=CLIPS_PER_STEP,
        optimizer="muon",
        muon_rate=config.stock_rate,
        dialects=("stillmotion",),
        **usual(config),
    )
    yield from trained(job, brought_file("motion_loras", name, weights))


def _footage(config: RecipeConfig) -> str:
    clips = f"toyworld:{config.stock_clips}:stock"
    return latents_of(config, clips, Path(config.folder) / "stock" / "latents")
