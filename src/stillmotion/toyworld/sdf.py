"""Signed distances: negative inside, zero on the edge. Points come as x and y tensors of one shape, y down."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

Points = Float[Tensor, "..."]


def circle(x: Points, y: Points, radius: float | Points = 1.0) -> Points:
    """Distance to a disc about the origin."""
    return torch.hypot(x, y) - radius


def box(x: Points, y: Points, half: float, corner: float) -> Points:
    """Distance to a square of half side `half` with corners rounded by `corner`."""
    dx, dy = x.abs() - (half - corner), y.abs() - (half - corner)
    return torch.hypot(dx.clamp(min=0), dy.clamp(min=0)) + torch.maximum(dx, dy).clamp(max=0) - corner


def segment(x: Points, y: Points, ends: tuple[Points, Points, Points, Points], half_width: float | Points) -> Points:
    """Distance to a stroke with round ends from (x0, y0) to (x1, y1): `ends` is (x0, y0, x1, y1)."""
    x0, y0, x1, y1 = ends
    dx, dy = x1 - x0, y1 - y0
    along = (((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy).clamp(min=1e-8)).clamp(0, 1)
    return torch.hypot(x - x0 - along * dx, y - y0 - along * dy) - half_width


def polygon(x: Points, y: Points, corners: list[tuple[float, float]]) -> Points:
    """Distance to a closed polygon, convex or not (Quilez, "2D distance functions")."""
    first_x, first_y = corners[0]
    nearest = (x - first_x) ** 2 + (y - first_y) ** 2
    sign = torch.ones_like(x)
    for (ax, ay), (bx, by) in zip(corners, corners[-1:] + corners[:-1], strict=True):
        ex, ey = bx - ax, by - ay
        wx, wy = x - ax, y - ay
        along = ((wx * ex + wy * ey) / (ex * ex + ey * ey)).clamp(0, 1)
        nearest = torch.minimum(nearest, (wx - ex * along) ** 2 + (wy - ey * along) ** 2)
        above, below, left = y >= ay, y < by, ex * wy > ey * wx
        crosses = (above & below & left) | ~(above | below | left)
        sign = torch.where(crosses, -sign, sign)
    return sign * nearest.sqrt()


def star_corners(points: int, outer: float, inner: float) -> list[tuple[float, float]]:
    """Return the corners of a star that stands on two points, the first pointing up."""
    radii = [outer, inner] * points
    turns = [2 * math.pi * k / len(radii) for k in range(len(radii))]
    return [(r * math.sin(a), -r * math.cos(a)) for r, a in zip(radii, turns, strict=True)]
