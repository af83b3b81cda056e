"""The training benchmark times equal work: both loops train the same parameters on the same clips, and nothing else."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler

from stillmotion.bench import TrainShape, bench_train
from stillmotion.bench.cached_loop import NOISE_SCHEDULE, cached_steps, fill_cache, footage, pixels_of
from stillmotion.bench.memory import step_memory
from stillmotion.bench.models import make_motion, make_t2i
from stillmotion.bench.plain_loop import PlainLoop
from stillmotion.data import LatentCache
from stillmotion.motion import plug
from stillmotion.shapes import fold_frames

SHAPE = TrainShape(size="tiny", num_frames=2, pixels=64, batch_size=2, dtype="float32")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shape's clips as a latent cache."""
    folder = tmp_path_factory.mktemp("bench") / "latents"
    assert fill_cache(SHAPE, folder) == 2 * 16
    return folder


def test_the_clock_runs() -> None:
    timing = bench_train(SHAPE, pairs=2, memory=False)
    assert len(timing.ours) == len(timing.theirs) == 2
    assert min(*timing.ours, *timing.theirs, timing.ratio, timing.cache_seconds) > 0
    assert all(0 < part < whole for part, whole in zip(timing.encoding, timing.theirs, strict=True))
    even = replace(timing, theirs=(4.0, 2.0, 6.0), encoding=(1.0, 1.0, 1.0))
    assert even.ratio_of_encoding == pytest.approx(4 / 3)
    assert timing.clips_per_second((0.5, 0.25, 4.0)) == 4.0
    assert (timing.plain_memory, timing.checkpointed_memory) == (None, None)


def test_the_plain_loop_encodes_what_the_cache_holds(cache: Path) -> None:
    pixels, held = pixels_of(SHAPE), LatentCache.open(cache)
    assert pixels.shape == (2, 2, 3, 64, 64)
    for clip in range(2):
        with torch.no_grad():
            posterior = make_t2i("tiny").vae.encode(pixels[clip]).latent_dist
        mean, _ = held.moments(clip, [0, 1])
        torch.testing.assert_close(mean.float(), posterior.mean, rtol=1e-2, atol=1e-3)  # held in half precision
    assert held.item(0).caption == footage(SHAPE).item(0).caption


def test_both_train_the_motion_module_and_nothing_else(cache: Path, tmp_path: Path) -> None:
    t2i, motion = make_t2i("tiny"), make_motion("tiny")
    frozen = {name: p.clone() for name, p in t2i.unet.named_parameters()}
    captions = [footage(SHAPE).item(clip).caption for clip in range(2)]
    with plug(t2i.unet, motion, SHAPE.num_frames):
        ours = cached_steps(SHAPE, t2i, motion, cache, tmp_path, 2)
        schedule = DDIMScheduler(**NOISE_SCHEDULE)
        theirs = PlainLoop(t2i, motion, schedule, pixels_of(SHAPE), captions, torch.float32)
        losses = []
        for step in (partial(next, ours), theirs.step) * 2:
            before = {name: p.detach().clone() for name, p in motion.named_parameters()}
            losses.append(step().loss)
            moved = {name for name, p in motion.named_parameters() if not torch.equal(p, before[name])}
            assert any(name.endswith("proj_out.weight") for name in moved)
            assert all(p.grad is None for p in motion.parameters())  # the other's gradients would be added to
    assert all(torch.equal(p, frozen[name]) for name, p in t2i.unet.named_parameters())
    assert all(0.5 < loss < 5 for loss in losses)  # an untrained model's error on unit noise
    assert list(tmp_path.iterdir()) == []  # no checkpoint is written while the clock runs


def test_both_ask_the_model_for_as_much(cache: Path, tmp_path: Path) -> None:
    t2i, motion = make_t2i("tiny"), make_motion("tiny")
    asked: list[tuple[torch.Tensor, ...]] = []

    def listen(_: object, inputs: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]) -> None:
        asked.append((inputs[0].detach(), inputs[1], named["encoder_hidden_states"]))

    captions = [footage(SHAPE).item(clip).caption for clip in range(2)]
    with plug(t2i.unet, motion, SHAPE.num_frames):
        handle = t2i.unet.register_forward_pre_hook(listen, with_kwargs=True)
        next(cached_steps(SHAPE, t2i, motion, cache, tmp_path, 1))
        PlainLoop(t2i, motion, DDIMScheduler(**NOISE_SCHEDULE), pixels_of(SHAPE), captions, torch.float32).step()
        handle.remove()
    (ours, our_times, our_text), (theirs, their_times, their_text) = asked
    assert ours.shape == theirs.shape == fold_frames(torch.empty(2, 4, 2, 8, 8)).shape
    assert our_times.shape == their_times.shape == (4,)
    assert our_times[0] == our_times[1] and their_times[0] == their_times[1]  # the frames of a clip share theirs
    apart = (their_text[:, None] - our_text[None]).abs().amax((2, 3))  # ours may be by oneDNN
    assert sorted((apart < 1e-4).sum(1).tolist()) == [2, 2, 2, 2]  # each the text of one clip's two frames


def test_memory_is_that_of_a_process_of_its_own(cache: Path) -> None:
    kept = bytearray(1 << 30)  # which is not counted, though it was ours when the process began
    kept[:: 1 << 12] = b"x" * (1 << 18)
    memory = step_memory(SHAPE, cache, 1, checkpointing=True)
    assert 0 < memory.weights < memory.before < memory.peak < len(kept)
