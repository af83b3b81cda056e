"""The toyworld's pencil: scenes, poses and a camera in, pictures out; all pictures of a call at once, on any device.

A cartoon: dark outlines, cel shading, a face on the leading side, a tail behind, and round every moving object a cue that
tells its motion in a still (`docs/decisions/` says why): orange streaks behind what rolls right, aqua ones behind what rolls
left, white strokes under what bounces, a pink ring round what spins, yellow rays round what grows.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stillmotion.toyworld import sdf
from stillmotion.toyworld.choreography import BOUNCING, GROWING, LEFT, RIGHT, SPINNING, Poses
from stillmotion.toyworld.language import SHAPES, STYLES

Pixels = Float[Tensor, "images 3 height width"]

BODY = torch.tensor([(225, 38, 38), (246, 138, 28), (247, 214, 40), (45, 170, 62), (38, 86, 222), (148, 52, 196)]) / 255
# top of the sky, sky at the horizon, ground at the horizon, ground at the bottom, hills, sun
PALETTE = (
    torch.tensor(
        [
            [(92, 170, 240), (206, 232, 250), (104, 190, 84), (62, 146, 56), (84, 168, 84), (255, 246, 196)],
            [(244, 168, 104), (254, 222, 160), (232, 200, 124), (204, 160, 88), (214, 152, 92), (255, 244, 200)],
            [(150, 176, 206), (222, 234, 244), (246, 250, 254), (220, 232, 242), (192, 210, 228), (255, 244, 206)],
            [(152, 108, 192), (236, 186, 220), (238, 162, 196), (198, 112, 158), (186, 120, 182), (250, 236, 200)],
            [(16, 18, 58), (48, 44, 104), (34, 58, 62), (20, 36, 42), (26, 34, 70), (240, 236, 206)],
        ]
    )
    / 255
)
STREAK = {RIGHT: (1.0, 0.56, 0.12), LEFT: (0.36, 0.92, 0.90)}
INK = (0.09, 0.07, 0.12)
WHITE = (1.0, 1.0, 1.0)
MOUTH = (0.42, 0.06, 0.10)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a clip shows besides motion, an entry per picture: indices into the word lists, and the chances of the set."""

    shape: Int[Tensor, "images"]
    colour: Int[Tensor, "images"]
    place: Int[Tensor, "images"]
    style: Int[Tensor, "images"]  # 0 the plain cartoon, else 1 + index into STYLES
    chance: Float[Tensor, "images 6"]  # horizon, hills' phase, hills' height, sun's x, sun's y, tint


@dataclass(frozen=True, kw_only=True)
class Camera:
    """How the picture is taken, an entry per picture: scale > 1 is nearer; shifts in widths; roll in radians.

    A camera that rolls clockwise sees the world turn anticlockwise, as with `stillmotion data camera`.
    """

    scale: Float[Tensor, "images"]
    x: Float[Tensor, "images"]
    y: Float[Tensor, "images"]
    roll: Float[Tensor, "images"]


class Canvas:
    """Pictures being painted, back to front, and where each of their pixels lies in the world."""

    def __init__(self, images: int, size: int, camera: Camera | None, device: torch.device) -> None:
        axis = (torch.arange(size, device=device) + 0.5) / size
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        self.x, self.y = x.expand(images, size, size), y.expand(images, size, size)
        self.edge = torch.full((images, 1, 1), 1.0 / size, device=device)  # a pixel's width in the world
        if camera is not None:
            dx, dy = self.x - 0.5, self.y - 0.5
            scale, roll = camera.scale[:, None, None], camera.roll[:, None, None]
            self.x = 0.5 + camera.x[:, None, None] + (dx * roll.cos() - dy * roll.sin()) / scale
            self.y = 0.5 + camera.y[:, None, None] + (dy * roll.cos() + dx * roll.sin()) / scale
            self.edge = self.edge / scale
        self.pixels = torch.zeros(images, 3, size, size, device=device)

    def paint(
        self, colour: Tensor | tuple[float, float, float], distance: Tensor, rows: Tensor, opacity: float = 1.0
    ) -> None:
        """Lay `colour` over pictures `rows` where `distance` (rows, height, width) is negative, its edge antialiased."""
        cover = (0.5 - distance / self.edge[rows]).clamp(0, 1).mul(opacity)[:, None]
        ink = torch.as_tensor(colour, device=distance.device)
        ink = ink.view(-1, 3, 1, 1) if ink.ndim < 3 else ink
        self.pixels[rows] = torch.lerp(self.pixels[rows], ink.expand(len(rows), -1, *cover.shape[2:]), cover)

    def ink_stroke(self, colour: Tensor | tuple[float, float, float], distance: Tensor, rows: Tensor) -> None:
        """Paint a cue with the cartoon's dark outline round it, so that it shows on every ground."""
        self.paint(INK, distance - 0.010, rows)
        self.paint(colour, distance, rows)


def draw(look: Look, poses: Poses, *, camera: Camera | None = None, size: int = 128) -> Pixels:
    """Return the pictures in [-1, 1]; `poses` has one clip per picture or the pictures' frames, clip by clip."""
    flat = _flattened(poses)
    frames = poses.x.shape[1]
    motion = poses.motion.repeat_interleave(frames)
    canvas = Canvas(len(motion), size, camera, poses.x.device)
    _paint_place(canvas, look)
    _paint_shadow(canvas, flat)
    for cue, index in ((_streaks, RIGHT), (_streaks, LEFT), (_strokes, BOUNCING), (_rays, GROWING), (_ring, SPINNING)):
        rows = torch.nonzero(motion == index).flatten()
        if len(rows):
            cue(canvas, {name: value[rows][:, None, None] for name, value in flat.items()}, rows, index)
    _paint_object(canvas, look, flat, motion)
    return canvas.pixels * 2 - 1


def draw_depth(look: Look, poses: Poses, *, camera: Camera | None = None, size: int = 128) -> Pixels:
    """Return how near everything in those pictures is, as grey pictures in [-1, 1]: white is near, the sky is black.

    As depth estimators tell it: the ground nears from the horizon to the picture's foot, hills are as far as the horizon,
    and an object is as near as the ground that it stands on, or would land on.
    """
    flat = _flattened(poses)
    canvas = Canvas(len(look.shape), size, camera, poses.x.device)
    rows = torch.arange(len(look.shape), device=poses.x.device)
    line, hills = _horizon(canvas, look)
    far = canvas.y.new_tensor(_HORIZON_NEARNESS).expand(len(rows), 3)
    canvas.paint(far, line - hills - canvas.y, rows)
    canvas.paint(_nearness(canvas.y, line)[:, None].expand(-1, 3, -1, -1), line - canvas.y, rows)
    _, body = _body_of(canvas, look, flat)
    floor = (flat["y"] + flat["radius"] * 0.97 + flat["lift"])[:, None, None]
    canvas.paint(_nearness(floor, line).flatten(1).expand(-1, 3), body - 0.012, rows)
    return canvas.pixels * 2 - 1


_HORIZON_NEARNESS = 0.15


def _nearness(y: Tensor, line: Tensor) -> Tensor:
    """Return how near the ground is at height `y` of the picture, its horizon at `line`; 1 at the picture's foot."""
    return _HORIZON_NEARNESS + (1 - _HORIZON_NEARNESS) * ((y - line) / (1 - line)).clamp(0, 1)


def _flattened(poses: Poses) -> dict[str, Tensor]:
    return {name: getattr(poses, name).flatten() for name in ("x", "y", "radius", "lean", "facing", "stretch", "lift")}


def _horizon(canvas: Canvas, look: Look) -> tuple[Tensor, Tensor]:
    """Return where the ground begins, and how high the hills stand over it."""
    horizon, phase, height, *_ = (c[:, None, None] for c in look.chance.unbind(1))
    hills = 0.025 + 0.06 * height * (0.6 + 0.4 * torch.sin(2 * math.pi * (1.2 * canvas.x + phase)))
    return 0.53 + 0.08 * horizon, hills + 0.02 * torch.sin(2 * math.pi * (2.7 * canvas.x + 3 * phase))


def _paint_place(canvas: Canvas, look: Look) -> None:
    palette = PALETTE.to(canvas.pixels.device)[look.place][..., None, None]  # (images, 6, 3, 1, 1)
    neon, paper = ((look.style == 1 + STYLES.index(name)).float().view(-1, 1, 1, 1, 1) for name in ("neon", "paper"))
    palette = torch.lerp(palette, palette * 0.22, neon)
    palette = torch.lerp(palette, 0.45 + 0.55 * palette.mean(2, keepdim=True).lerp(palette, 0.8), paper)
    sun_x, sun_y = (look.chance[:, column, None, None] for column in (3, 4))
    x, y = canvas.x, canvas.y
    line, hills = _horizon(canvas, look)
    rows = torch.arange(len(x), device=x.device)

    sky = torch.lerp(palette[:, 0], palette[:, 1], (y / line).clamp(0, 1)[:, None])
    ground = torch.lerp(palette[:, 2], palette[:, 3], ((y - line) / (1 - line)).clamp(0, 1)[:, None])
    canvas.pixels = sky
    sun = sdf.circle(x - (0.12 + 0.76 * sun_x), y - (0.12 + 0.10 * sun_y), 0.065)
    canvas.paint(palette[:, 5].flatten(1), sun, rows)
    canvas.paint(palette[:, 4].flatten(1), line - hills - y, rows)
    canvas.paint(ground, line - y, rows)


def _paint_shadow(canvas: Canvas, pose: dict[str, Tensor]) -> None:
    x, y, radius, lift = (pose[name][:, None, None] for name in ("x", "y", "radius", "lift"))
    floor = y + radius * 0.97 + lift
    wide = radius * (0.95 - 1.2 * lift).clamp(min=0.4)
    rows = torch.arange(len(x), device=x.device)
    canvas.paint(
        (0.05, 0.04, 0.10), (torch.hypot(canvas.x - x, (canvas.y - floor) * 3.6) - wide) / 3, rows, opacity=0.30
    )


def _streaks(canvas: Canvas, pose: dict[str, Tensor], rows: Tensor, index: int) -> None:
    ahead = 1.0 if index == RIGHT else -1.0
    radius = pose["radius"]
    for offset, length in ((-0.58, 1.15), (0.04, 1.60), (0.62, 1.15)):
        tip = pose["x"] - ahead * 1.22 * radius
        y = pose["y"] + offset * radius
        ends = (tip, y, tip - ahead * length * radius, y)
        stroke = sdf.segment(canvas.x[rows], canvas.y[rows], ends, 0.135 * radius)
        canvas.ink_stroke(STREAK[index], stroke, rows)


def _strokes(canvas: Canvas, pose: dict[str, Tensor], rows: Tensor, _: int) -> None:
    radius, lift = pose["radius"], pose["lift"]
    x, y = canvas.x[rows], canvas.y[rows]
    foot = pose["y"] + radius * pose["stretch"].sqrt()
    for offset in (-0.62, 0.0, 0.62):
        ends = (pose["x"] + offset * radius, foot + 0.22 * radius, pose["x"] + offset * radius, foot + 0.9 * lift)
        stroke = sdf.segment(x, y, ends, 0.13 * radius)
        canvas.ink_stroke(WHITE, torch.where(lift > 0.09, stroke, 1.0), rows)
    for side in (-1.0, 1.0):  # puffs of dust where it lands
        puff = sdf.circle(x - pose["x"] - side * 1.5 * radius, y - foot + 0.18 * radius, 0.26 * radius)
        canvas.ink_stroke(WHITE, torch.where(lift < 0.07, puff, 1.0), rows)


def _rays(canvas: Canvas, pose: dict[str, Tensor], rows: Tensor, _: int) -> None:
    radius = pose["radius"]
    for turn in range(5):
        dx, dy = math.cos(math.pi * (turn / 2.5 - 0.5)), math.sin(math.pi * (turn / 2.5 - 0.5))
        near, far = 1.36 * radius + 0.02, 1.56 * radius + 0.04
        ends = (pose["x"] + dx * near, pose["y"] + dy * near, pose["x"] + dx * far, pose["y"] + dy * far)
        ray = sdf.segment(canvas.x[rows], canvas.y[rows], ends, (0.15 * radius).clamp(min=0.024))
        canvas.ink_stroke((1.0, 0.86, 0.20), ray, rows)


def _ring(canvas: Canvas, pose: dict[str, Tensor], rows: Tensor, _: int) -> None:
    radius = pose["radius"]
    ring = (sdf.circle(canvas.x[rows] - pose["x"], canvas.y[rows] - pose["y"], 1.42 * radius)).abs() - 0.09 * radius
    canvas.ink_stroke((1.0, 0.42, 0.74), ring, rows)


def _turned(dx: Tensor, dy: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Return the offsets seen from an object turned clockwise by `angle`."""
    return dx * angle.cos() + dy * angle.sin(), dy * angle.cos() - dx * angle.sin()


def _body(x: Tensor, y: Tensor, shape: Tensor) -> Tensor:
    """Return the distance to each picture's own shape, in its unit coordinates."""
    distance = torch.empty_like(x)
    for index, name in enumerate(SHAPES):
        rows = torch.nonzero(shape == index).flatten()
        px, py = x[rows], y[rows]
        if name == "ball":
            distance[rows] = sdf.circle(px, py)
        elif name == "box":
            distance[rows] = sdf.box(px, py, 0.88, 0.12)
        elif name == "star":
            distance[rows] = sdf.polygon(px, py - 0.06, sdf.star_corners(5, 1.26, 0.60)) - 0.06
        else:
            distance[rows] = sdf.polygon(px, py, [(0.0, -1.08), (1.10, 0.86), (-1.10, 0.86)]) - 0.08
    return distance


def _body_of(canvas: Canvas, look: Look, pose: dict[str, Tensor]) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Return where every pixel lies in the object's unit coordinates, and its distance to the object's edge."""
    pose = {name: value[:, None, None] for name, value in pose.items()}
    x, y = _turned(canvas.x - pose["x"], canvas.y - pose["y"], pose["lean"])
    high = pose["stretch"].sqrt()
    x, y = x * high / pose["radius"], y / high / pose["radius"]
    return (x, y), _body(x, y, look.shape) * pose["radius"]


def _paint_object(canvas: Canvas, look: Look, pose: dict[str, Tensor], motion: Tensor) -> None:
    unit, body = _body_of(canvas, look, pose)
    pose = {name: value[:, None, None] for name, value in pose.items()}
    rows = torch.arange(len(motion), device=motion.device)

    neon, paper = ((look.style == 1 + STYLES.index(name)).view(-1, 1) for name in ("neon", "paper"))
    colour = BODY.to(motion.device)[look.colour]
    dark, light = colour * 0.68, colour + (1 - colour) * 0.35
    outline = torch.tensor(INK, device=motion.device).expand_as(colour)
    outline = torch.where(neon, colour + (1 - colour) * 0.25, torch.where(paper, torch.ones_like(colour), outline))
    colour = torch.where(neon, colour * 0.25, torch.where(paper, 0.35 + 0.65 * colour, colour))
    flat = (neon | paper).view(-1, 1, 1)
    canvas.paint(outline, body - 0.012 - 0.006 * flat, rows)
    canvas.paint(colour, body, rows)
    # Cel shading: a dark rim below right, a light one above left, both fixed to the world's light, not to the object.
    away = (canvas.x - pose["x"] + canvas.y - pose["y"]) / pose["radius"]
    canvas.paint(dark, torch.maximum(body, (0.72 - away) * pose["radius"]) + flat, rows)
    canvas.paint(light, torch.maximum(body + 0.012, (away + 0.95) * pose["radius"]) + flat, rows)
    _paint_face(canvas, unit, body, pose, motion)


_ROUND = 0.72
"""How far the eyes' and the tail's middle is from the axis that they turn about, in radii."""
_EDGE = 0.12
"""The least share of its width at which something that turns away is still drawn."""


def _paint_face(
    canvas: Canvas, unit: tuple[Tensor, Tensor], body: Tensor, pose: dict[str, Tensor], motion: Tensor
) -> None:
    """Paint eyes, mouth and tail where they are on a body that faces as `pose` says, round as seen from above."""
    x, y = unit
    rows, radius, facing = torch.arange(len(motion), device=motion.device), pose["radius"], pose["facing"]
    ahead = ((motion == RIGHT).float() - (motion == LEFT).float())[:, None, None]
    up = (motion == BOUNCING).float()[:, None, None]
    edge = torch.where((motion == SPINNING)[:, None, None], body, -1.0)  # what turns goes behind the body's edge
    x = x - 0.24 * ahead

    def seen(turned: Tensor, middle: float = 0.0) -> tuple[Tensor, Tensor]:
        """Return across how many of its radii a pixel lies from what is turned so, and where that cannot be seen."""
        side = math.asin(middle / _ROUND)
        wide = (turned + side).cos() / math.cos(side)
        across = (x - _ROUND * (turned + side).sin()) / wide.clamp(min=_EDGE)
        return across, torch.where(wide > _EDGE, edge, 1.0)

    for middle in (-0.31, 0.31):
        across, hidden = seen(facing, middle)
        eye = sdf.circle(across, y + 0.16, 0.29) * radius
        canvas.paint(INK, torch.maximum(eye - 0.008, hidden), rows)
        canvas.paint(WHITE, torch.maximum(eye, hidden), rows)
        pupil = sdf.circle(across - 0.11 * ahead, y + 0.16 + 0.10 * up, 0.14) * radius
        canvas.paint(INK, torch.maximum(pupil, hidden), rows)
    across, hidden = seen(facing)
    smile = torch.maximum(sdf.circle(across, y - 0.30, 0.26), 0.30 - y) * radius
    canvas.paint(MOUTH, torch.maximum(smile, hidden), rows)
    across, hidden = seen(facing + math.pi)
    tail = sdf.circle(across, y - 0.20, 0.34) * radius
    canvas.paint(INK, torch.maximum(tail - 0.010, hidden), rows)
    canvas.paint(WHITE, torch.maximum(tail, hidden), rows)
