"""The files that the pages name, tiny, with random weights, shaped to fit the toyworld's image model."""

from pathlib import Path

import pytest
import torch


@pytest.fixture
def files_of_the_docs(tmp_path: Path) -> Path:
    """A folder with an image model called toonyou, motion modules and a MotionLoRA under the names of the real ones."""
    from stillmotion.checkpoints import save
    from stillmotion.motion import MotionLora, MotionModule
    from stillmotion.toyworld import weights_folder

    (tmp_path / "toonyou").symlink_to(weights_folder(), target_is_directory=True)
    torch.manual_seed(0)
    made = {}
    for name, variant in (("v3_sd15_mm.ckpt", "v3"), ("mm_sd_v15_v2.ckpt", "v2")):
        made[variant] = MotionModule.from_variant(variant, block_out_channels=(64, 128, 128, 128), layers_per_block=1)
        save(made[variant], tmp_path / name, dialect="original")
    layers = {path: layer for path, layer in made["v2"].named_modules() if path.endswith(("to_q", "to_k", "to_v"))}
    weights = {
        path: (torch.randn(2, layer.in_features), torch.randn(layer.out_features, 2)) for path, layer in layers.items()
    }
    save(MotionLora(weights=weights), tmp_path / "v2_lora_ZoomIn.ckpt", dialect="original")
    return tmp_path
