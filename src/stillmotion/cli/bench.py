"""`bench step`, `bench plug` and `bench train`: timings against others' ways of doing the same, on this machine; `bench
long`: long clips against short ones.
"""

import argparse
import statistics
from typing import TYPE_CHECKING

from stillmotion.cli.parsing import Parser
from stillmotion.cli.screen import Screen
from stillmotion.cli.verb import Verb
from stillmotion.errors import ConfigError

if TYPE_CHECKING:
    from stillmotion.bench import ClipCost, TrainTiming

SIZES = ("sd15", "half", "tiny")
DTYPES = ("float32", "bfloat16", "float16")


def _step_arguments(parser: Parser) -> None:
    parser.add_argument("--size", choices=SIZES, default="half", help="Widths of the UNet: SD 1.5's or less. [half]")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="How numbers are held. [float32]")
    parser.add_argument("--pairs", type=int, default=5, metavar="N", help="How many runs of each, in turn. [5]")
    parser.add_argument("--frames", type=int, default=8, metavar="N", help="Frames of the clip. [8]")
    parser.add_argument("--side", type=int, default=16, metavar="N", help="Side of the latents; pixels / 8. [16]")
    parser.add_argument("--threads", type=int, metavar="N", help="Threads; PyTorch's own number by default.")


def _step(arguments: argparse.Namespace, screen: Screen) -> int:
    import torch

    from stillmotion.bench import bench_step

    screen.note(f"timing {arguments.pairs} pairs of steps at size {arguments.size} …")
    timing = bench_step(
        size=arguments.size,
        dtype=getattr(torch, arguments.dtype),
        pairs=arguments.pairs,
        num_frames=arguments.frames,
        side=arguments.side,
        num_threads=arguments.threads,
    )
    ours, theirs = statistics.median(timing.ours), statistics.median(timing.theirs)
    ratios = [b / a for a, b in zip(timing.ours, timing.theirs, strict=True)]
    screen.facts(
        [
            ("step", f"{timing.size}, {arguments.frames} frames, {timing.dtype}, {timing.num_threads} threads"),
            ("stillmotion", f"{ours:.3f} s, the median of {len(ratios)}"),
            ("diffusers", f"{theirs:.3f} s"),
            ("faster", f"{timing.ratio:.2f} times, the median of the pairs ({min(ratios):.2f} to {max(ratios):.2f})"),
            ("motion", f"{timing.motion_share:.0%} of our step"),
            ("matrix rate", f"{timing.share_of_peak:.0%} of the {timing.peak_flops / 1e9:.0f} GFLOP/s measured here"),
            ("difference", f"{timing.difference:.1e} relative, between both outputs"),
        ]
    )
    return 0


def _plug_arguments(parser: Parser) -> None:
    parser.add_argument("--size", choices=SIZES, default="sd15", help="Widths of the UNet: SD 1.5's or less. [sd15]")
    parser.add_argument("--times", type=int, default=20, metavar="N", help="How often it is plugged in. [20]")


def _plug(arguments: argparse.Namespace, screen: Screen) -> int:
    from stillmotion.bench import bench_plug

    screen.note(f"making models of size {arguments.size} …")
    timing = bench_plug(size=arguments.size, times=arguments.times)
    screen.facts(
        [
            ("plug", f"{1000 * timing.ours:.2f} ms, {timing.copied / 1e6:.0f} MB copied"),
            ("diffusers", f"{1000 * timing.theirs:.0f} ms, {timing.copied_by_diffusers / 1e6:.0f} MB copied"),
        ]
    )
    return 0


def _train_arguments(parser: Parser) -> None:
    parser.add_argument("--size", choices=SIZES, default="half", help="Widths of the models: SD 1.5's or less. [half]")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="What the UNet computes in; weights are kept in float32. [float32]",
    )
    parser.add_argument("--pairs", type=int, default=5, metavar="N", help="How many steps of each, in turn. [5]")
    parser.add_argument("--frames", type=int, default=16, metavar="N", help="Frames of a clip. [16]")
    parser.add_argument("--pixels", type=int, default=256, metavar="N", help="Side of a frame in pixels. [256]")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="Clips of a step. [1]")
    parser.add_argument("--threads", type=int, metavar="N", help="Threads; PyTorch's own number by default.")
    parser.add_argument("--no-memory", action="store_true", help="Leave out the measuring of peak memory.")


def _train(arguments: argparse.Namespace, screen: Screen) -> int:
    from stillmotion.bench import TrainShape, bench_train

    shape = TrainShape(
        size=arguments.size,
        num_frames=arguments.frames,
        pixels=arguments.pixels,
        batch_size=arguments.batch_size,
        dtype=arguments.dtype,
    )
    if arguments.pairs < 1:
        raise ConfigError(f"--pairs: expected an integer >= 1, got {arguments.pairs}")
    screen.note(f"timing {arguments.pairs} pairs of training steps at size {shape.size} …")
    timing = bench_train(shape, pairs=arguments.pairs, num_threads=arguments.threads, memory=not arguments.no_memory)
    screen.facts([*_train_facts(timing), *_memory_facts(timing)])
    return 0


def _train_facts(timing: "TrainTiming") -> list[tuple[str, str]]:
    from stillmotion.bench.models import SIZES as WIDTHS
    from stillmotion.bench.models import TEXT_SIZES, VAE_WIDTHS

    shape = timing.shape
    unet, vae = ("-".join(map(str, widths[shape.size])) for widths in (WIDTHS, VAE_WIDTHS))
    width, layers = TEXT_SIZES[shape.size]
    ratios = [b / a for a, b in zip(timing.ours, timing.theirs, strict=True)]
    rates = [
        f"{timing.clips_per_second(seconds):.3f} clips/s, {statistics.median(seconds):.3f} s a step, the median of "
        f"{len(seconds)}"
        for seconds in (timing.ours, timing.theirs)
    ]
    without = f"without, it would be {timing.ratio_of_encoding:.2f} times as fast"
    return [
        ("step", f"motion module, {timing.num_parameters:,} numbers trained; {_shape_of(timing)}"),
        ("models", f"{shape.size}: UNet {unet}, VAE {vae}, text {width} in {layers} layers; random weights"),
        ("stillmotion", f"{rates[0]}; latents from the cache"),
        ("plain loop", f"{rates[1]}; VAE and text encoder at every step"),
        ("faster", f"{timing.ratio:.2f} times, the median of the pairs ({min(ratios):.2f} to {max(ratios):.2f})"),
        ("encoding", f"{statistics.median(timing.encoding):.3f} s of the plain loop's step: {without}"),
        ("cache", f"{timing.cached_frames} frames encoded once, in {timing.cache_seconds:.1f} s"),
    ]


def _memory_facts(timing: "TrainTiming") -> list[tuple[str, str]]:
    from stillmotion.bench.memory import STAGE

    plain, checkpointed = timing.plain_memory, timing.checkpointed_memory
    if plain is None or checkpointed is None:
        return []
    peaks = [
        f"{kept.peak / 1e9:.2f} GB at the peak of a step, {(kept.peak - kept.before) / 1e9:.2f} GB of it since before"
        for kept in (plain, checkpointed)
    ]
    return [
        ("memory", f"MotionLoRA of rank {STAGE.rank}; {_shape_of(timing)}; all weights {plain.weights / 1e9:.2f} GB"),
        ("without", f"{peaks[0]}; no gradient checkpointing"),
        ("with", f"{peaks[1]}; gradient checkpointing"),
        ("less", f"{checkpointed.peak / plain.peak:.2f} of the peak"),
    ]


def _shape_of(timing: "TrainTiming") -> str:
    shape = timing.shape
    clips = f"{shape.batch_size} clip{'s' * (shape.batch_size != 1)} of {shape.num_frames} frames"
    return f"{clips}, {shape.pixels}x{shape.pixels}, {shape.dtype}, {timing.num_threads} threads"


def _long_arguments(parser: Parser) -> None:
    parser.add_argument("--short", type=int, default=64, metavar="N", help="Frames of the short clip. [64]")
    parser.add_argument("--long", type=int, default=1024, metavar="N", help="Frames of the long clip. [1024]")
    parser.add_argument("--steps", type=int, default=4, metavar="N", help="Denoising steps of both. [4]")
    parser.add_argument("--window", type=int, default=16, metavar="N", help="Frames of a window. [16]")
    parser.add_argument("--threads", type=int, metavar="N", help="Threads; PyTorch's own number by default.")


def _long(arguments: argparse.Namespace, screen: Screen) -> int:
    from stillmotion.bench import LongShape, bench_long

    shape = LongShape(short=arguments.short, long=arguments.long, steps=arguments.steps, window=arguments.window)
    screen.note(f"making {shape.short} frames, {shape.long}, and {shape.short} again, each in a process of its own …")
    timing = bench_long(shape, num_threads=arguments.threads)
    short, long = timing.short, timing.long
    grown = (long.peak - short.peak) / (long.latents - short.latents)
    screen.facts(
        [
            (
                "clips",
                f"toyworld, 128x128, {shape.steps} steps, windows of {shape.window}, {timing.num_threads} threads",
            ),
            *((f"{cost.num_frames} frames", _cost_facts(cost)) for cost in (short, long)),
            ("memory", f"{long.peak / short.peak:.3f} of the short clip's at the peak"),
            ("grown by", f"{(long.peak - short.peak) / 1e6:.1f} MB, {grown:.1f} times what the latents grew by"),
            ("time", f"{long.seconds_per_frame / short.seconds_per_frame:.3f} of the short clip's per frame"),
            ("overlap", f"{long.seen / short.seen:.3f} of the short clip's UNet passes per frame, which windows cost"),
            *((f"seams {cost.num_frames}", _seam_facts(cost)) for cost in (short, long)),
        ]
    )
    return 0


def _cost_facts(cost: "ClipCost") -> str:
    return (
        f"{cost.peak / 1e6:.1f} MB at the peak, {cost.latents / 1e6:.2f} MB of it latents; {cost.seconds_per_frame:.4f} s a "
        f"frame, each seen {cost.seen:.3f} times a step"
    )


def _seam_facts(cost: "ClipCost") -> str:
    if cost.jump_at_borders is None or cost.jump_elsewhere is None:
        return "too few frames, or no window border among them"
    jumps = f"{cost.jump_at_borders:.4f} % of the side at window borders, {cost.jump_elsewhere:.4f} % elsewhere"
    ratio = "" if cost.jump_ratio is None else f": {cost.jump_ratio:.3f} times"
    return f"flow jumps by {jumps}{ratio}"


VERBS = {
    "bench step": Verb(
        description="Time a denoising step against diffusers' UNetMotionModel: same weights, dtype and threads, run "
        "in turn, the median of the pairs' ratios. Both halves of guidance are computed.",
        add_arguments=_step_arguments,
        run=_step,
    ),
    "bench plug": Verb(
        description="Time sm.plug against UNetMotionModel.from_unet2d, and count the bytes of weights that each copies.",
        add_arguments=_plug_arguments,
        run=_plug,
    ),
    "bench train": Verb(
        description="Time an optimizer step on cached latents against a plain loop that encodes each step with the VAE and "
        "the text encoder, as the reference trainer does: same models, same clips, run in turn, the median of the pairs' "
        "ratios. Decoding is charged to neither."
        "\n\nThen the peak memory of a step with and without gradient checkpointing, each in a process of its own. It is a "
        "MotionLoRA's, whose gradients and moments are small, so that activations are what is measured.",
        add_arguments=_train_arguments,
        run=_train,
    ),
    "bench long": Verb(
        description="Make a short and a long clip of the toyworld at 128x128, each in a process of its own, and compare the "
        "peak of resident memory, the time per frame, and the mean flow jump where windows begin or end with that elsewhere. "
        "A flow jump is how far the flow from a frame to the next is from the mean of the flows before and after it."
        "\n\nWhat grows with a clip are its latents: those of all frames are kept, the UNet sees one window of them at a "
        "time, and decoded frames go straight to the writers.",
        add_arguments=_long_arguments,
        run=_long,
    ),
}
