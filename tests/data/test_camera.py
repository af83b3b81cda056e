"""Camera motion: names and amounts, crops inside the picture, and optical flow that finds what was asked."""

import math
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from stillmotion.data import CAMERA_MOTIONS, CameraMotion, along_path, camera_path, move_camera
from stillmotion.errors import ConfigError, MismatchError, StillmotionError


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A still of smooth noise at three scales, so that flow finds its way everywhere."""
    draw = np.random.default_rng(seed)
    layers = []
    for sigma in (1.5, 4, 10):
        layer = cv2.GaussianBlur(draw.normal(size=(height, width, 3)), (0, 0), sigma)
        layers.append(layer / layer.std())
    mixed = sum(layers)
    return np.clip(128 + 30 * mixed, 0, 255).astype(np.uint8)[None]


# --- what is asked for ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("zoom-in", {"zoom": 1.5}),
        ("zoom-out:2", {"zoom": 0.5}),
        ("pan-left:0.2", {"pan": -0.2}),
        ("Pan_Right", {"pan": 0.3}),
        ("tilt-up:.25", {"tilt": 0.25}),
        ("tilt-down:1", {"tilt": -1.0}),
        ("roll-clockwise:45", {"roll": 45.0}),
        ("roll-anticlockwise", {"roll": -30.0}),
        (" zoom-in:1.3 + pan-left:0.2 ", {"zoom": 1.3, "pan": -0.2}),
        ("pan-left:0.2+pan-left:0.1", {"pan": -0.2 - 0.1}),
    ],
)
def test_a_text_says_a_motion(text: str, fields: dict[str, float]) -> None:
    motion = CameraMotion.parse(text)
    assert motion == CameraMotion(**fields)
    again = CameraMotion.parse(str(motion))
    assert [again.zoom, again.pan, again.tilt, again.roll] == pytest.approx(
        [motion.zoom, motion.pan, motion.tilt, motion.roll]
    )


def test_sums_and_names() -> None:
    total = CameraMotion.from_name("zoom-in", 2) + CameraMotion.from_name("zoom-in", 1.5)
    assert total == CameraMotion(zoom=3)
    assert str(total + CameraMotion.from_name("tilt-down", 0.5)) == "zoom-in:3+tilt-down:0.5"
    assert str(CameraMotion()) == "still" and not CameraMotion().moves
    for name in CAMERA_MOTIONS:
        assert str(CameraMotion.from_name(name)).startswith(f"{name}:")
    with pytest.raises(ConfigError, match="'linear' and 'smooth'"):
        CameraMotion(zoom=2) + CameraMotion(zoom=2, easing="smooth")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("zoom-inn:1.2", "unknown camera motion 'zoom-inn'; the nearest is 'zoom-in'"),
        ("roll-counterclockwise", "the nearest is 'roll-clockwise'|the nearest is 'roll-anticlockwise'"),
        ("zoom-in:0.8", "zoom-in: expected a factor above 1 and up to 20, got 0.8"),
        ("pan-left:-0.2", "pan-left: expected a share of the frame's width above 0 and up to 4, got -0.2"),
        ("tilt-up:nan", "tilt-up: expected a share"),
        ("roll-clockwise:270", "degrees above 0 and up to 180, got 270"),
        ("zoom-in:big", "zoom-in: expected a number behind the colon, got 'big'"),
        ("zoom-in:", "got ''"),
        ("zoom-in+", "expected a camera motion such as"),
        ("", "expected a camera motion such as"),
        ("pan-left+pan-right", "cancel each other"),
        ("zoom-in:20+zoom-in:2", "zoom: expected a number from 0.05 to 20, got 40"),
    ],
)
def test_a_wrong_text_is_named(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        CameraMotion.parse(text)


@pytest.mark.parametrize("field", ["zoom", "pan", "tilt", "roll"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1000])
def test_values_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{field}: expected a number from"):
        CameraMotion(**{field: value})


def test_what_cannot_be_filmed_is_refused() -> None:
    motion = CameraMotion(zoom=2)
    with pytest.raises(ConfigError, match="at least 2"):
        camera_path(motion, 1, (64, 64), (64, 64))
    with pytest.raises(ConfigError, match="at least 1x1"):
        camera_path(motion, 4, (64, 64), (0, 64))
    with pytest.raises(MismatchError, match=r"zoom-in:8: the smallest crop would be 8\.0 pixels of .* 64x64"):
        camera_path(CameraMotion(zoom=8), 4, (64, 64), (64, 64))
    with pytest.raises(MismatchError, match="got 3 frames"):
        move_camera(np.zeros((3, 64, 64, 3), np.uint8), motion, 4, (64, 64))


# --- where the crops lie ---------------------------------------------------------------------------------------------

pictures = st.tuples(st.integers(200, 20000), st.integers(200, 20000))
sizes = st.tuples(st.integers(64, 1024), st.integers(64, 1024))
motions = st.builds(
    CameraMotion,
    zoom=st.floats(0.05, 20),
    pan=st.floats(-4, 4),
    tilt=st.floats(-4, 4),
    roll=st.floats(-180, 180),
    easing=st.sampled_from(["linear", "smooth"]),
)


def corners_in_source(path: np.ndarray, target: tuple[int, int]) -> np.ndarray:
    """Where the corners of every frame lie in the source: (frames, 4, 2)."""
    height, width = target
    corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], float)
    return np.stack([np.linalg.solve(view[:, :2], corners.T - view[:, 2:]).T for view in path])


@settings(max_examples=200, deadline=None)
@given(motion=motions, num_frames=st.integers(2, 20), source=pictures, target=sizes)
@example(motion=CameraMotion(roll=180, pan=1), num_frames=3, source=(900, 900), target=(64, 64))
@example(motion=CameraMotion(zoom=1 + 1e-12, pan=0.5), num_frames=5, source=(900, 900), target=(64, 64))
@example(motion=CameraMotion(), num_frames=2, source=(64, 64), target=(64, 64))
def test_every_crop_is_inside_and_none_larger_would_be(
    motion: CameraMotion, num_frames: int, source: tuple[int, int], target: tuple[int, int]
) -> None:
    try:
        path = camera_path(motion, num_frames, source, target)
    except MismatchError:
        event("too small a picture")
        return
    assert path.shape == (num_frames, 2, 3) and np.isfinite(path).all()
    corners = corners_in_source(path, target)
    room = np.array([source[1], source[0]])
    tiny = 1e-7 * room.max()
    assert (corners >= -tiny).all() and (corners <= room + tiny).all()
    # The largest: on one axis the crops touch both edges.
    spare = room - (corners.max((0, 1)) - corners.min((0, 1)))
    assert spare.min() <= tiny
    # Similarities, never mirrored; the first stands upright.
    assert path[:, 0, 0] == pytest.approx(path[:, 1, 1]) and path[:, 0, 1] == pytest.approx(-path[:, 1, 0])
    assert path[0, 0, 1] == 0 and path[0, 0, 0] > 0


@settings(max_examples=100, deadline=None)
@given(motion=motions, target=sizes)
def test_from_first_to_last_it_is_exactly_what_was_asked(motion: CameraMotion, target: tuple[int, int]) -> None:
    path = camera_path(motion, 5, (10**6, 10**6), target)
    zoom, roll, pan, tilt = parts(seen_between(path[0], path[-1]), target)
    assert abs(math.remainder(roll - motion.roll, 360)) < 1e-6  # half a turn is the same either way round
    assert [zoom, pan, tilt] == pytest.approx([motion.zoom, motion.pan, motion.tilt], rel=1e-6, abs=1e-6)


def test_linear_easing_moves_evenly_and_smooth_starts_and_ends_at_rest() -> None:
    motion = CameraMotion(zoom=1.7, pan=0.3, tilt=-0.2, roll=50)
    even = camera_path(motion, 9, (500, 500), (64, 64))
    steps = [seen_between(a, b) for a, b in pairwise(even)]
    assert all(step == pytest.approx(steps[0]) for step in steps)
    smooth = camera_path(CameraMotion(pan=0.3, easing="smooth"), 9, (500, 500), (64, 64))[:, 0, 2]
    lengths = np.abs(np.diff(smooth))
    assert lengths == pytest.approx(lengths[::-1])
    assert lengths[0] < 0.4 * lengths.mean() and lengths.argmax() in (3, 4)
    assert (smooth[4] - smooth[0]) == pytest.approx((smooth[-1] - smooth[0]) / 2)


def seen_between(first: np.ndarray, later: np.ndarray) -> np.ndarray:
    """The motion (2, 3) of what is seen, from one frame to another."""
    square = [np.vstack([view, [0, 0, 1]]) for view in (first, later)]
    return (square[1] @ np.linalg.inv(square[0]))[:2]


def parts(motion: np.ndarray, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Zoom, roll (degrees, the camera's clockwise), pan and tilt of a motion (2, 3) of what is seen."""
    middle = np.array([size[1], size[0]]) / 2
    shift = motion[:, :2] @ middle + motion[:, 2] - middle
    turned = math.degrees(math.atan2(motion[1, 0], motion[0, 0]))
    return math.hypot(motion[0, 0], motion[1, 0]), -turned, -shift[0] / size[1], shift[1] / size[0]


# --- what is seen ----------------------------------------------------------------------------------------------------

SIZE = (96, 128)
TWO_SUMS = ["zoom-in:1.3+pan-left:0.2", "zoom-out:1.4+roll-clockwise:25+tilt-down:0.15"]


def flow_as_similarity(first: np.ndarray, later: np.ndarray) -> np.ndarray:
    """The similarity (2, 3) that fits the optical flow between two frames best.

    Flow is too short by a percent or so, being smoothed; so the later frame is brought back by what was found, and what
    is left is measured again.
    """
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first, later)]
    height, width = grey[0].shape
    y, x = np.mgrid[0:height, 0:width] + 0.5
    flow_of = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    found = np.eye(3)
    centres = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # OpenCV's pixels are points, at their centres
    for _ in range(3):
        view = (np.linalg.inv(centres) @ found @ centres)[:2]
        brought = cv2.warpAffine(grey[1], view, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        flow = flow_of.calc(grey[0], brought, None)
        u, v = x + flow[..., 0], y + flow[..., 1]
        reached = found[:2] @ np.stack([u.ravel(), v.ravel(), np.ones(u.size)])
        inside = (reached > 4).all(0) & (reached[0] < width - 4) & (reached[1] < height - 4)
        found = found @ np.vstack([fitted(*(values.ravel()[inside] for values in (x, y, u, v))), [0, 0, 1]])
    return found[:2]


def fitted(x: np.ndarray, y: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The similarity (2, 3) that brings points (x, y) to (u, v): least squares, the worst tenth left out twice."""
    for _ in range(3):
        one, none = np.ones_like(x), np.zeros_like(x)
        rows = np.concatenate([np.stack([x, -y, one, none], 1), np.stack([y, x, none, one], 1)])
        a, b, c, d = np.linalg.lstsq(rows, np.concatenate([u, v]), rcond=None)[0]
        away = np.hypot(a * x - b * y + c - u, b * x + a * y + d - v)
        near = away <= np.quantile(away, 0.9)
        x, y, u, v = x[near], y[near], u[near], v[near]
    return np.array([[a, -b, c], [b, a, d]])


@pytest.mark.parametrize("text", [*CAMERA_MOTIONS, *TWO_SUMS])
def test_measured_by_optical_flow_it_is_what_was_asked(text: str) -> None:
    motion = CameraMotion.parse(text)
    frames = move_camera(noise(200, 260), motion, 9, SIZE)
    path = camera_path(motion, 9, (200, 260), SIZE)
    # First to third frame at once, against the path; all steps one after the other, against what was asked.
    direct = parts(flow_as_similarity(frames[0], frames[2]), SIZE)
    true = parts(seen_between(path[0], path[2]), SIZE)
    whole = np.eye(3)
    for before, after in pairwise(frames):
        whole = np.vstack([flow_as_similarity(before, after), [0, 0, 1]]) @ whole
    asked = (motion.zoom, motion.roll, motion.pan, motion.tilt)
    for measured, expected in ((direct, true), (parts(whole[:2], SIZE), asked)):
        zoom, roll, pan, tilt = np.subtract(measured, expected)
        # Measured with OpenCV 5.0: 0.3 %, 0.03 degrees and 0.08 pixels at most.
        assert abs(zoom) < 0.005 * expected[0]
        assert abs(roll) < 0.1
        assert max(abs(pan) * SIZE[1], abs(tilt) * SIZE[0]) < 0.2


def test_names_mean_what_the_camera_does() -> None:
    still = np.zeros((1, 96, 96, 3), np.uint8)
    still[0, 40:56, 40:56] = 255
    still[0, 20:40, 45:51] = 255  # a stalk upwards

    def moved(name: str, rows: slice = slice(None)) -> np.ndarray:
        """How far the middle of the white (x, y) moves, from the first frame to the last."""
        frames = move_camera(still, CameraMotion.from_name(name), 3, (96, 96))[..., 0] > 128
        first, last = ([places.mean() for places in np.nonzero(frames[index, rows])[::-1]] for index in (0, -1))
        return np.subtract(last, first)

    assert moved("pan-left")[0] > 10
    assert moved("pan-right")[0] < -10
    assert moved("tilt-up")[1] > 10
    assert moved("tilt-down")[1] < -10
    assert moved("roll-clockwise", slice(0, 30))[0] < -3  # the stalk falls to the left: anticlockwise
    assert moved("roll-anticlockwise", slice(0, 30))[0] > 3
    counts = [
        (frames[-1] > 128).sum() / (frames[0] > 128).sum()
        for frames in (
            move_camera(still, CameraMotion.from_name(name, 2), 3, (96, 96)) for name in ("zoom-in", "zoom-out")
        )
    ]
    assert counts == pytest.approx([4, 1 / 4], rel=0.1)


def test_a_still_at_its_own_size_is_untouched() -> None:
    frame = noise(64, 96)
    assert (move_camera(frame, CameraMotion(), 3, (64, 96)) == frame).all()


def test_a_whole_pixel_pan_copies_pixels() -> None:
    still = noise(64, 128)
    frames = move_camera(still, CameraMotion(pan=0.5), 17, (64, 64))  # 2 pixels a frame
    assert frames.shape == (17, 64, 64, 3)
    for index, frame in enumerate(frames):
        left = 16 + 2 * index
        assert (frame == still[0, :, left : left + 64]).all()


def test_a_clip_goes_on_while_the_camera_moves() -> None:
    clip = np.stack([np.full((64, 64, 3), 10 * index, np.uint8) for index in range(6)])
    frames = move_camera(clip, CameraMotion(zoom=1.5, roll=20), 6, (48, 48))
    assert (frames == 10 * np.arange(6, dtype=np.uint8)[:, None, None, None]).all()
    ended = along_path(clip[:2], camera_path(CameraMotion(zoom=2), 6, (64, 64), (32, 32)), (32, 32))
    assert len(list(ended)) == 2
    # An iterator, as a film is: of a list, a checker of types would look at one frame of its own choice.
    mixed = iter([clip[0], clip[1, :32]])
    with pytest.raises(MismatchError, match="frames of one shape"):
        list(along_path(mixed, camera_path(CameraMotion(zoom=2), 6, (64, 64), (32, 32)), (32, 32)))


@pytest.mark.parametrize("factor", [1.3, 2, 5, 9.7])
def test_shrinking_leaves_no_moire(factor: float) -> None:
    side = round(48 * factor)
    stripes = np.zeros((1, side, side, 3), np.uint8)
    stripes[:, :, ::2] = 255  # as fine as can be: seen from afar it is grey
    frames = move_camera(stripes, CameraMotion(roll=10), 4, (40, 40)).astype(float)
    if factor >= 2:
        assert frames.std() < 12 and abs(frames.mean() - 127.5) < 3
    white = np.full((1, side, side, 3), 255, np.uint8)
    assert (move_camera(white, CameraMotion(zoom=1.4, roll=10), 4, (40, 40)) == 255).all()


def test_all_errors_are_stillmotions_own() -> None:
    with pytest.raises(StillmotionError):
        CameraMotion.parse("dolly")
