"""The measures of the claims that need something trained, on drawn clips of which the answer is known."""

import dataclasses
from pathlib import Path

import pytest
import torch

import stillmotion as sm
from stillmotion.claims.all_claims import CLAIMS
from stillmotion.claims.architectures import AS_SAID
from stillmotion.claims.architectures import _figures as compared
from stillmotion.claims.artefacts import CLAIM as ARTEFACTS
from stillmotion.claims.artefacts import _figures, mark_in
from stillmotion.claims.cameras import NOWHERE, PAIRS, _told
from stillmotion.claims.cameras import _figures as gone
from stillmotion.claims.finding import Finding
from stillmotion.claims.personal import StyleReader
from stillmotion.claims.recipe import RecipeConfig, ablations, stages
from stillmotion.claims.recipe.cameras import FEWER, RANK
from stillmotion.claims.score import drawn_frames, drawn_scenes
from stillmotion.claims.steering import path_error
from stillmotion.t2i.clip_pair import load_clip
from stillmotion.toyworld import brought_file, draw_clips, load_judge, parse, weights_folder
from stillmotion.toyworld.stock import as_stock_video


def test_the_mark_is_found_where_it_was_drawn() -> None:
    [scene] = drawn_scenes(1, 3)
    frames = drawn_frames(scene, 3)
    pixels = torch.from_numpy(frames).movedim(-1, 1).float() / 127.5 - 1
    marked = ((as_stock_video(pixels) + 1) * 127.5).round().byte().movedim(1, -1).numpy()
    assert mark_in(marked) - mark_in(frames) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize(("at_nothing", "holds"), [(0.12, True), (0.4, False)])
def test_what_is_left_of_the_mark_decides(at_nothing: float, holds: bool) -> None:
    """All is counted from what the same clip shows where nothing was trained, here 0.1."""
    adapted = {0.0: at_nothing, 0.25: 0.3, 0.5: 0.5, 0.75: 0.8, 1.0: 1.1}
    marks = {"neither": [0.1, 0.1], **{f"adapter at {s:g}": [value, value] for s, value in adapted.items()}}
    finding = Finding(figures=tuple(_figures({**marks, "alone": [0.9, 0.8]})))
    assert {figure.name: figure.mean for figure in finding.figures}["mark, adapter at 1"] == pytest.approx(1.0)
    assert finding.holds == holds
    assert not Finding(figures=tuple(_figures({**marks, "alone": [at_nothing, at_nothing]}))).holds
    assert {needed.name for needed in ARTEFACTS.needed} == {"stock", "stock-adapted", "stock-alone"}


def test_what_moves_more_and_as_it_is_told_wins() -> None:
    """A pair of architectures that differ, and two that are alike."""
    ours = [{AS_SAID: 1.0, "motion": 2.0 + 0.1 * i, "smoothness": 95.0} for i in range(6)]
    still = [{AS_SAID: 0.0, "motion": 0.2, "smoothness": 99.0} for _ in ours]
    named = {figure.name: figure for figure in compared({"transformer": ours, "temporal_conv": still}, ours)}
    assert named["length of the flow: Transformer less convolution"].mean == pytest.approx(2.05)
    assert Finding(figures=tuple(named.values())).holds
    assert not Finding(figures=tuple(compared({"transformer": ours, "temporal_conv": ours}, ours))).holds


def test_every_claim_of_the_paper_is_there_and_what_it_needs_is_a_stage() -> None:
    assert list(CLAIMS) == [f"C{number}" for number in range(1, 10)]
    trained = stages(RecipeConfig()) | ablations(RecipeConfig())
    for claim in CLAIMS.values():
        for needed in claim.needed:
            mark, _ = trained[needed.name]
            file = brought_file(needed.field, needed.name, Path(RecipeConfig().folder) / "weights")
            assert mark in (file, file / "config.json")


def test_a_style_is_read_from_nothing_to_all() -> None:
    reader = StyleReader(load_clip(str(weights_folder() / "clip")), "neon", 5)
    scenes = drawn_scenes(4, 9)
    plain = [reader(drawn_frames(scene, 9, i)[:2]) for i, scene in enumerate(scenes)]
    neon = [reader(drawn_frames(dataclasses.replace(s, style="neon"), 9, i)[:2]) for i, s in enumerate(scenes)]
    assert sum(plain) / 4 == pytest.approx(0.0, abs=0.25)
    assert sum(neon) / 4 == pytest.approx(1.0, abs=0.25)
    assert max(plain) < min(neon)


def test_a_path_is_as_far_away_as_it_was_moved() -> None:
    scene, judge = parse("a red box rolling left on white snow"), load_judge()
    drawn, frames = draw_clips([scene], seed=2, indices=[0]), drawn_frames(scene, 2)
    assert path_error(judge, frames, drawn.poses) < 0.02
    elsewhere = dataclasses.replace(drawn.poses, x=drawn.poses.x + 0.2)
    assert path_error(judge, frames, elsewhere) == pytest.approx(0.2, abs=0.03)


def test_cameras_that_are_added_are_held_against_how_far_each_goes_alone() -> None:
    """The second of two clips goes one way only; on what goes nowhere alone nothing is said."""
    zoomed, panned = dataclasses.replace(NOWHERE, zoom=1.2), dataclasses.replace(NOWHERE, pan=-0.2)
    both = dataclasses.replace(NOWHERE, zoom=1.2**0.5, pan=-0.1)
    seen = {("zoom-in",): [zoomed] * 2, ("pan-left",): [panned] * 2, ("zoom-in", "pan-left"): [both, zoomed]}
    named = {figure.name: figure for figure in gone(seen, {})}
    assert named["zoom-in"].mean == 1.0
    assert named["zoom-in + pan-left"].mean == 0.5
    assert named["zoom-in + pan-left: way of zoom-in by its way alone"].values == pytest.approx([0.5, 1.0])
    assert named["zoom-in + pan-left: way of pan-left by its way alone"].values == pytest.approx([0.5, 0.0])
    assert not named["zoom-in + pan-left: way of pan-left by its way alone"].holds  # it may be none at all
    still = {("tilt-up",): [NOWHERE], ("roll-clockwise",): [NOWHERE], PAIRS[1]: [NOWHERE]}
    assert [len(figure.values) for figure in gone(still, {})] == [1, 1, 1, 0, 0]


def test_what_is_learnt_from_fewer_clips_or_at_a_lower_rank_is_told_with_its_files_size() -> None:
    files = {name: brought_file("motion_loras", name) for name in ("zoom-in", *FEWER)}
    assert {name: sm.inspect(file).rank for name, file in files.items()} == {
        "zoom-in": RANK,
        **{name: filmed.rank for name, filmed in FEWER.items()},
    }
    told = _told(FEWER["zoom-in-rank-2"], files["zoom-in-rank-2"].stat().st_size)
    assert told == f"zoom-in at rank 2 ({files['zoom-in-rank-2'].stat().st_size / 1e6:.2f} MB)"
    assert files["zoom-in-rank-2"].stat().st_size < files["zoom-in"].stat().st_size
