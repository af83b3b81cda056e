"""Clips with known answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SIDE = 96


def drawn_texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture of smooth coloured noise at three scales, so that flow finds its way everywhere."""
    import cv2

    draw = np.random.default_rng(seed)
    layers = [cv2.GaussianBlur(draw.normal(size=(height, width, 3)), (0, 0), sigma) for sigma in (1.5, 4, 10)]
    return np.clip(128 + 30 * sum(layer / layer.std() for layer in layers), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def texture() -> Callable[..., np.ndarray]:
    return drawn_texture


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    return drawn_texture(160, 220)


@pytest.fixture(scope="session")
def still(picture: np.ndarray) -> np.ndarray:
    return np.stack([picture[:SIDE, :SIDE]] * 6)


@pytest.fixture(scope="session")
def panned(picture: np.ndarray) -> np.ndarray:
    """What is seen moves left by exactly 2 pixels per frame: the camera pans right."""
    return np.stack([picture[20 : 20 + SIDE, 2 * index : 2 * index + SIDE] for index in range(9)])


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Write frames without loss, as a folder of PNGs with a record in them."""
    from stillmotion.data import write_clip

    def write(frames: np.ndarray, name: str, prompt: str | None = None, **record: Any) -> Path:
        metadata = {"config": {"prompt": prompt}, **record} if prompt else record
        return write_clip(frames, tmp_path / name, 8, metadata=metadata).path

    return write


@pytest.fixture
def pictures(tmp_path: Path, picture: np.ndarray) -> Path:
    """A folder of two reference pictures."""
    folder = tmp_path / "references"
    folder.mkdir()
    Image.fromarray(picture[:64, :64]).save(folder / "one.png")
    Image.fromarray(picture[60:124, 80:144]).save(folder / "two.png")
    return folder
