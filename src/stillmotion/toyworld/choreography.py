"""How things move: a scene and a draw of chance in, the exact pose of the object in every frame out.

Lengths are in widths of the picture, x to the right and y down; angles in radians; time runs from 0 at a clip's first
frame to 1 at its sixteenth. Phase and speed differ from clip to clip.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stillmotion.toyworld.language import MOTIONS, Scene

CLIP_FRAMES = 16  # the length of the clips that the toyworld's motion module is trained on

PHASES, PACES = 0.08, 0.2
"""How far apart clips of a motion that comes back begin, as a share of its period, and how far apart their numbers of periods
are: which moment of a hop is first, and how many there are, must be told from noise alone, by all frames at once."""
SPIN_PHASES, SPIN_PACES = 0.02, 0.02
"""The same for turns: what spins faces another way in every frame, and a face drawn at the mean of several ways is none. So
near to each other, the turns of all clips pass through the same few ways."""

RIGHT, LEFT, BOUNCING, SPINNING, GROWING, STILL = range(len(MOTIONS) + 1)


@dataclass(frozen=True, kw_only=True)
class Poses:
    """Where the object is, a row per clip and a column per frame."""

    x: Float[Tensor, "clips frames"]
    y: Float[Tensor, "clips frames"]  # of the centre of the undeformed shape
    radius: Float[Tensor, "clips frames"]
    lean: Float[Tensor, "clips frames"]  # clockwise in the picture's plane
    facing: Float[Tensor, "clips frames"]  # about the upright axis: 0 faces us, a quarter turn the picture's right
    stretch: Float[Tensor, "clips frames"]  # height over width: < 1 squashed, > 1 stretched; the area is kept
    lift: Float[Tensor, "clips frames"]  # height above the ground
    motion: Int[Tensor, "clips"]  # index into MOTIONS; len(MOTIONS) means standing still


def motion_indices(scenes: list[Scene]) -> Int[Tensor, "clips"]:
    """Return each scene's index into MOTIONS, `STILL` where it has none."""
    return torch.tensor([MOTIONS.index(scene.motion) if scene.motion else STILL for scene in scenes])


def choreograph(
    motion: Int[Tensor, "clips"], chance: Float[Tensor, "clips 8"], frames: Float[Tensor, "frames"]
) -> Poses:
    """Return the poses of clips whose chances are uniform in [0, 1), at the given frame numbers (fractions allowed)."""
    time = (frames / (CLIP_FRAMES - 1))[None, :]  # (1, frames)
    place, size, pace, phase, depth, *_ = (column[:, None] for column in chance.unbind(1))

    def only(index: int) -> Tensor:
        return (motion == index)[:, None]

    radius = 0.185 + 0.030 * size + 0 * time
    ground = 0.77 + 0.08 * depth  # where the object touches the ground

    # Rolling: the whole path stays inside the picture, and where it begins varies with what room the travel leaves.
    travel = 0.38 + 0.14 * pace
    start = 0.22 + (0.56 - travel) * place
    along = start + travel * time
    x = torch.where(only(RIGHT), along, torch.where(only(LEFT), 1 - along, 0.5 + 0.30 * (place - 0.5) + 0 * time))

    # Bouncing: two hops of a ball thrown up from near the ground, squashed while it touches it.
    hop = torch.remainder(time * (2 + PACES * (pace - 0.5)) + PHASES * phase, 1.0)
    arc = 4 * hop * (1 - hop)
    lift = torch.where(only(BOUNCING), 0.28 * arc, 0 * time)
    squash = 1 - 0.42 * torch.exp(-((arc / 0.22) ** 2)) + 0.12 * torch.exp(-(((arc - 0.6) / 0.25) ** 2))
    breathing = 1 + 0.02 * torch.sin(2 * math.pi * (time + phase))
    stretch = torch.where(only(BOUNCING), squash, breathing)

    # Spinning: as a top does, upright, so that shapes are seen from the side where they can be told apart.
    turns = 1 + SPIN_PACES * (pace - 0.5)
    facing = torch.where(only(SPINNING), 2 * math.pi * (turns * time + SPIN_PHASES * (phase - 0.5)), 0 * time)
    lean = torch.where(only(RIGHT), 0.16, torch.where(only(LEFT), -0.16, 0.0)) + 0 * time

    small, big = 0.115 + 0.02 * size, 0.255 + 0.03 * pace
    radius = torch.where(only(GROWING), small * (big / small) ** time, radius)

    radius, stretch = torch.broadcast_tensors(radius, stretch)
    y = ground - radius * stretch.sqrt() * 0.94 - lift
    y = torch.where(only(GROWING), torch.minimum(y, 0.70 - 0.45 * radius), y)
    return Poses(
        x=x.contiguous(), y=y, radius=radius, lean=lean, facing=facing, stretch=stretch, lift=lift, motion=motion
    )
