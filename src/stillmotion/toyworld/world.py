"""Clips and pictures of the toyworld with their captions and their exact truth, each a function of (seed, index)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stillmotion.seeding import generator
from stillmotion.toyworld.choreography import CLIP_FRAMES, Poses, choreograph, motion_indices
from stillmotion.toyworld.drawing import Camera, Look, draw
from stillmotion.toyworld.language import COLOURS, PLACES, SHAPES, STYLES, Scene, draw_scene


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A batch of drawn clips with everything that is true of them."""

    pixels: Float[Tensor, "clips 3 frames height width"]  # in [-1, 1]
    scenes: tuple[Scene, ...]
    poses: Poses
    look: Look  # an entry per picture, clip by clip


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What the judge learns to read, an entry per picture."""

    classes: dict[str, Int[Tensor, "images"]]  # shape, colour, place, motion
    measures: Float[Tensor, "images 6"]  # as `judge.MEASURES` says


def _chances(seed: int, purpose: str, indices: Sequence[int], count: int) -> Float[Tensor, "clips chances"]:
    return torch.stack([torch.rand(count, generator=generator(seed, purpose, index)) for index in indices])


def draw_clips(
    scenes: Sequence[Scene],
    *,
    seed: int,
    indices: Sequence[int],
    frames: Float[Tensor, "frames"] | None = None,
    camera: Camera | None = None,
    size: int = 128,
    device: str | torch.device = "cpu",
) -> Drawn:
    """Draw one clip per scene; what a scene leaves open is drawn by chance from (seed, its index).

    `frames` are the frame numbers to draw (0 to 15 by default; fractions and others are allowed), `camera` has an entry
    per picture, clip by clip.
    """
    frames = torch.arange(CLIP_FRAMES, dtype=torch.float32) if frames is None else frames
    chance = _chances(seed, "toyworld take", indices, 18)
    poses = choreograph(motion_indices(list(scenes)), chance[:, :8], frames)
    poses = Poses(**{name: value.to(device) for name, value in vars(poses).items()})
    look = _look(scenes, chance[:, 8:], len(frames), device)
    images = draw(look, poses, camera=camera, size=size)
    pixels = images.unflatten(0, (len(scenes), len(frames))).movedim(1, 2).contiguous()
    return Drawn(pixels=pixels, scenes=tuple(scenes), poses=poses, look=look)


def draw_pictures(indices: Sequence[int], *, seed: int, size: int = 128, device: str | torch.device = "cpu") -> Drawn:
    """Draw one random frame of one random clip per index: the stills that the base model learns."""
    scenes, poses, look = _moments(indices, seed, device)
    return Drawn(pixels=draw(look, poses, size=size).unsqueeze(2), scenes=scenes, poses=poses, look=look)


def picture_truth(indices: Sequence[int], *, seed: int) -> Truth:
    """Return what is true of those pictures, without drawing them."""
    _, poses, look = _moments(indices, seed, "cpu")
    return truth(poses, look)


def truth(poses: Poses, look: Look) -> Truth:
    """Return the classes and measures that the judge is to read off those pictures."""
    frames = poses.x.shape[1]
    motion = poses.motion.repeat_interleave(frames)
    classes = {"shape": look.shape, "colour": look.colour, "place": look.place, "motion": motion}
    logs = (poses.radius.log(), poses.stretch.log())
    measures = (poses.x, poses.y, *logs, poses.facing.cos(), poses.facing.sin())
    return Truth(classes=classes, measures=torch.stack([m.flatten() for m in measures], 1))


def _moments(indices: Sequence[int], seed: int, device: str | torch.device) -> tuple[tuple[Scene, ...], Poses, Look]:
    scenes = tuple(draw_scene(generator(seed, "toyworld scene", index)) for index in indices)
    moments = (_chances(seed, "toyworld moment", indices, 1) * CLIP_FRAMES).floor()
    chance = _chances(seed, "toyworld take", indices, 18)
    kinds = motion_indices(list(scenes))
    each = [choreograph(kinds[i : i + 1], chance[i : i + 1, :8], moments[i]) for i in range(len(scenes))]
    poses = Poses(**{name: torch.cat([getattr(pose, name) for pose in each]).to(device) for name in vars(each[0])})
    return scenes, poses, _look(scenes, chance[:, 8:], 1, device)


def _look(scenes: Sequence[Scene], chance: Tensor, frames: int, device: str | torch.device) -> Look:
    def pick(words: tuple[str, ...], said: list[str | None], column: int) -> Tensor:
        drawn = (chance[:, column] * len(words)).long()
        chosen = [words.index(word) if word else int(other) for word, other in zip(said, drawn, strict=True)]
        return torch.tensor(chosen, device=device).repeat_interleave(frames)

    style = torch.tensor([STYLES.index(scene.style) + 1 if scene.style else 0 for scene in scenes], device=device)
    return Look(
        shape=pick(SHAPES, [scene.shape for scene in scenes], 0),
        colour=pick(COLOURS, [scene.colour for scene in scenes], 1),
        place=pick(PLACES, [scene.place for scene in scenes], 2),
        style=style.repeat_interleave(frames),
        chance=chance[:, 4:10].to(device).repeat_interleave(frames, 0),
    )
