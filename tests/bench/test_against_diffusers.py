"""The benchmark times equal work: both UNets compute one function, and nothing is copied by plugging."""

from stillmotion.bench import bench_plug, bench_step


def test_both_compute_the_same_and_the_clock_runs() -> None:
    timing = bench_step(size="tiny", pairs=1, num_frames=4, side=8)
    assert timing.difference <= 1e-5
    assert timing.ratio > 0
    assert 0 < timing.motion_share < 1
    assert 0 < timing.share_of_peak < 1.5


def test_plugging_copies_nothing_and_diffusers_copies_all() -> None:
    timing = bench_plug(size="tiny", times=2)
    assert timing.copied == 0
    assert timing.copied_by_diffusers > 0
