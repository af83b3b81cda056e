"""Reading pictures back: a small network tells what is in a frame and where, and rules tell how a clip moves.

The network is trained on drawn frames, whose truth is exact, roughened by blur, noise and the VAE, and ships with the
weights. The rules know only measured tracks.
"""

import math
from collections import Counter
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from stillmotion.toyworld.choreography import BOUNCING, CLIP_FRAMES, GROWING, LEFT, RIGHT, SPINNING, STILL
from stillmotion.toyworld.language import COLOURS, MOTIONS, PLACES, SHAPES, Scene

INPUT_SIZE = 64
CLASSES = {"shape": len(SHAPES), "colour": len(COLOURS), "place": len(PLACES), "motion": len(MOTIONS) + 1}
MEASURES = 6  # x, y, ln radius, ln stretch, and the cosine and sine of where it faces

# What a clip of `CLIP_FRAMES` must at least do to count as moving so: widths travelled, widths risen, times grown, turns made.
LEAST_TRAVEL, LEAST_HOP, LEAST_GROWTH, LEAST_TURN = 0.20, 0.10, 1.45, 0.40


@dataclass(frozen=True)
class Reading:
    """What the judge sees, an entry per picture: scores of the classes before softmax, and measures."""

    scores: dict[str, Float[Tensor, "images classes"]]
    measures: Float[Tensor, "images 6"]

    def best(self, name: str) -> Int[Tensor, "images"]:
        """Return the likeliest class of `name` per picture."""
        return self.scores[name].argmax(1)


class Judge(nn.Module):
    """Pictures in [-1, 1] of any size in, a `Reading` out."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = (width, 2 * width, 3 * width, 4 * width)
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1)]
        for before, after in zip((width, *widths), widths, strict=False):
            layers += [nn.GroupNorm(8, before), nn.SiLU(), nn.Conv2d(before, after, 3, stride=2, padding=1)]
            layers += [nn.GroupNorm(8, after), nn.SiLU(), nn.Conv2d(after, after, 3, padding=1)]
        self.features = nn.Sequential(*layers, nn.GroupNorm(8, widths[-1]), nn.SiLU(), nn.Flatten())
        flat = widths[-1] * (INPUT_SIZE // 16) ** 2
        self.head = nn.Sequential(nn.Linear(flat, 192), nn.SiLU(), nn.Linear(192, sum(CLASSES.values()) + MEASURES))

    def forward(self, pixels: Float[Tensor, "images 3 height width"]) -> Reading:
        """Return what is seen in each picture."""
        small = F.interpolate(pixels, (INPUT_SIZE, INPUT_SIZE), mode="bilinear", antialias=True, align_corners=False)
        *scores, measures = self.head(self.features(small)).split([*CLASSES.values(), MEASURES], dim=1)
        return Reading(dict(zip(CLASSES, scores, strict=True)), measures)


@dataclass(frozen=True, kw_only=True)
class Track:
    """How one clip moved, measured."""

    travel: float  # of x from the first frames to the last, in widths
    hop: float  # the highest rise that is followed by a fall, or the other way round, in widths
    growth: float  # radius of the last frames over that of the first
    turns: float  # whole turns made, clockwise positive
    time: float = 1.0  # how long the clip is, in times of one of `CLIP_FRAMES`, at most 1

    @property
    def motion(self) -> int:
        """Return the index of the motion it shows best, `STILL` if none reaches its least amount.

        A shorter clip has to get less far. A hop is as high in any, and comes back in half of one.
        """
        amounts = {
            RIGHT: self.travel / (LEAST_TRAVEL * self.time),
            LEFT: -self.travel / (LEAST_TRAVEL * self.time),
            BOUNCING: self.hop / LEAST_HOP,
            GROWING: math.log(max(self.growth, 1e-6)) / (math.log(LEAST_GROWTH) * self.time),
            SPINNING: abs(self.turns) / (LEAST_TURN * self.time),
        }
        best = max(amounts, key=lambda index: amounts[index])
        return best if amounts[best] >= 1 else STILL


def track(measures: Float[Tensor, "frames 6"]) -> Track:
    """Return how a clip moved, from its frames' measures."""
    x, y, log_radius, _, cosine, sine = measures.unbind(1)
    ends = max(len(x) // 6, 1)
    growth = math.exp(float(log_radius[-ends:].mean() - log_radius[:ends].mean()))
    time = min(max(len(x) - 1, 1) / (CLIP_FRAMES - 1), 1.0)
    travel = float(x[-ends:].mean() - x[:ends].mean())
    turns = _turned(torch.atan2(sine, cosine))
    return Track(travel=travel, hop=_hop(y), growth=growth, turns=turns, time=time)


_FASTEST = 2 / (CLIP_FRAMES - 1)  # turns from one frame to the next
_STEADY = 0.65
"""How well the frames must agree on a rate of turning, 0 to 1. Of clips whose frames face at random 1 in 200 do."""


def _turned(facing: Float[Tensor, "frames"]) -> float:
    """Return how many turns it makes at the steady rate that fits its frames best; 0 where they do not agree on any.

    The rate is the peak of the periodogram (Rife and Boorstyn 1974). Single frames that are misread do not matter: where
    neither face nor tail is seen, a body turned to the right looks like one turned to the left.
    """
    frames = torch.arange(len(facing), device=facing.device)
    rates = torch.linspace(-_FASTEST, _FASTEST, 401, device=facing.device)
    behind = facing - 2 * math.pi * rates[:, None] * frames
    agreed, best = torch.hypot(behind.cos().mean(1), behind.sin().mean(1)).max(0)
    return float(rates[best]) * (len(facing) - 1) if agreed >= _STEADY else 0.0


def _hop(y: Float[Tensor, "frames"]) -> float:
    """Return the largest rise and fall: how far the turning point lies from the nearer of both sides' extremes."""
    best = 0.0
    for middle in range(1, len(y) - 1):
        before, after = y[:middle], y[middle + 1 :]
        up = float(torch.minimum(before.max(), after.max()) - y[middle])
        down = float(y[middle] - torch.maximum(before.min(), after.min()))
        best = max(best, up, down)
    return best


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one clip shows, held against what its caption says."""

    colour: bool
    place: bool
    shape: bool
    motion: bool
    identity: bool  # shape and colour stay the same through at least nine frames of ten
    track: Track
    seen: Scene


def judge_clip(reading: Reading, scene: Scene) -> Verdict:
    """Return the verdict on a clip of which `reading` has a row per frame; what the caption leaves open is right."""
    seen: dict[str, int] = {}
    steady = {}
    for name in ("shape", "colour", "place"):
        (winner, votes), *_ = Counter(reading.best(name).tolist()).most_common(1)
        seen[name], steady[name] = winner, votes >= 0.9 * len(reading.measures)
    moved = track(reading.measures)
    words = {"shape": SHAPES[seen["shape"]], "colour": COLOURS[seen["colour"]], "place": PLACES[seen["place"]]}
    motion = moved.motion
    shown = Scene(**words, motion=None if motion == STILL else MOTIONS[motion])
    return Verdict(
        colour=scene.colour in (None, shown.colour),
        place=scene.place in (None, shown.place),
        shape=scene.shape == shown.shape,
        motion=scene.motion == shown.motion,
        identity=steady["shape"] and steady["colour"],
        track=moved,
        seen=shown,
    )
