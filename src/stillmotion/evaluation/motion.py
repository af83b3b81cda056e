"""What optical flow tells of one clip, frame by frame: how much moves, what the camera does, what motion leaves unexplained."""

import numpy as np
from jaxtyping import UInt8

from stillmotion.evaluation.camera import camera_of
from stillmotion.evaluation.flow import CameraStep, Flow, Grey, at, camera_step, flow_between, grey_of, visible
from stillmotion.evaluation.measured import Measured

CAMERA = ("zoom", "pan", "tilt", "roll", "camera_confidence", "object_motion")
_LEAST_VISIBLE = 0.01  # the share of pixels that must be seen in both frames for a warping error


class MotionMeasures:
    """Measures one clip; `wanted` are the names of metrics."""

    def __init__(self, wanted: frozenset[str]) -> None:
        self._wanted = wanted
        self._before: Grey | None = None
        self._lengths: list[float] = []
        self._steps: list[CameraStep | None] = []
        self._errors: list[float] = []

    def add(self, frame: UInt8[np.ndarray, "height width 3"]) -> None:
        """Take the next frame."""
        grey, before = grey_of(frame), self._before
        self._before = grey
        if before is None:
            return
        forward = flow_between(before, grey)
        self._lengths.append(100 * float(np.hypot(forward[..., 0], forward[..., 1]).mean()) / min(grey.shape))
        if self._wanted.intersection(CAMERA):
            self._steps.append(camera_step(before, grey, forward))
        if "warping_error" in self._wanted:
            self._errors.append(warping_error(before, grey, forward))

    def finish(self) -> Measured:
        """Return the measures."""
        found = Measured()
        if self._before is None or not self._lengths:
            return found
        found.mean_of("motion", self._lengths)
        if self._wanted.intersection(CAMERA):
            self._add_camera(found, self._before.shape[:2])
        seen = [error for error in self._errors if not np.isnan(error)]
        if seen:
            found.mean_of("warping_error", seen)
        elif self._errors:
            found.skipped["warping_error"] = "no pixel can be followed from a frame to the next"
        return found

    def _add_camera(self, found: Measured, size: tuple[int, int]) -> None:
        camera = camera_of(self._steps, size)
        if camera is None:
            reason = "the picture has too little detail to be followed"
            found.skipped.update(dict.fromkeys(CAMERA, reason))
            return
        found.camera = camera.name
        for name in ("zoom", "pan", "tilt", "roll"):
            found.values[name] = getattr(camera, name)
        found.mean_of("camera_confidence", [step.confidence if step else 0.0 for step in self._steps])
        found.mean_of("object_motion", [100 * step.residual / min(size) for step in self._steps if step])


def warping_error(first: Grey, second: Grey, forward: Flow) -> float:
    """Return the mean difference in percent of full brightness between a frame and the next, warped back onto it.

    Only pixels seen in both count, as in Lai et al., "Learning Blind Video Temporal Consistency" (ECCV 2018), of which this
    is the absolute difference, comparable to `flicker`. NaN where next to none are.
    """
    seen = visible(forward, flow_between(second, first))
    if seen.mean() < _LEAST_VISIBLE:
        return float("nan")
    height, width = first.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    back = at(second.astype(np.float32), x + forward[..., 0], y + forward[..., 1])
    return float(np.abs(back - first)[seen].mean()) / 2.55
