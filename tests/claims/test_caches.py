"""What the stages that dream take their samples from: a camera that stands, and now and then one that moves."""

import shutil
from pathlib import Path

import pytest
import torch

from stillmotion.claims.recipe import RecipeConfig
from stillmotion.claims.recipe.caches import (
    MOVED_OFTEN,
    MOVED_SHARE,
    UNSAID,
    UNSAID_MOVED,
    TextTable,
    clip_cache,
    clip_scenes,
    with_moved,
)
from stillmotion.data import CAMERA_MOTIONS
from stillmotion.toyworld import weights_folder
from stillmotion.toyworld.choreography import CLIP_FRAMES


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RecipeConfig:
    folder = tmp_path_factory.mktemp("recipe")
    for name in ("vae", "text_encoder", "tokenizer"):
        shutil.copytree(weights_folder() / name, folder / "weights" / name)
    return RecipeConfig(folder=str(folder), num_clips=3, moved_clips=len(CAMERA_MOTIONS))


@pytest.mark.parametrize("stills", [True, False], ids=["stills", "clips"])
def test_some_samples_were_taken_by_a_moving_camera(config: RecipeConfig, stills: bool) -> None:
    scenes = clip_scenes(config)
    if stills:
        scenes = [scene for scene in scenes for _ in range(CLIP_FRAMES)]
    often = {scene.motion or "": 3.0 for scene in scenes[:1]}
    shelf = with_moved(config, clip_cache(config), scenes, often, stills=stills)

    frames = 1 if stills else CLIP_FRAMES
    moved = len(CAMERA_MOTIONS) * CLIP_FRAMES // frames
    assert len(shelf.captions) == len(shelf.often) == len(shelf.unsaid) == len(scenes) + moved
    assert {len(value) for value in shelf.posteriors.values()} == {len(shelf.captions) * frames}
    assert shelf.captions[: len(scenes)] == [scene.caption for scene in scenes]
    assert shelf.often[-moved:].sum() / shelf.often.sum() == pytest.approx(MOVED_SHARE)
    assert shelf.often[0] == 3.0
    each = shelf.often[-moved:].view(len(CAMERA_MOTIONS), -1).sum(1)
    assert (each / each[0]).tolist() == pytest.approx([MOVED_OFTEN.get(name, 1.0) for name in CAMERA_MOTIONS])
    assert shelf.unsaid[: len(scenes)].unique().tolist() == pytest.approx([UNSAID])
    assert shelf.unsaid[-moved:].unique().tolist() == pytest.approx([UNSAID_MOVED])


def test_a_moving_cameras_captions_are_left_out_more_often(config: RecipeConfig) -> None:
    unsaid = torch.tensor([0.0, 1.0, 0.5])
    table = TextTable(Path(config.folder) / "weights", ["a red ball", "a blue box", "a star"], "cpu", unsaid)
    chance = torch.Generator().manual_seed(0)
    read = [table(torch.arange(3), chance) for _ in range(200)]
    silent = torch.stack([(features == table.features[0]).flatten(1).all(1) for features in read]).float().mean(0)
    assert silent[0] == 0 and silent[1] == 1 and 0.35 < silent[2] < 0.65
