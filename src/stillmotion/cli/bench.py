"""`bench step` and `bench plug`: timings against diffusers on this machine."""

import argparse
import statistics

from stillmotion.cli.parsing import Parser
from stillmotion.cli.screen import Screen
from stillmotion.cli.verb import Verb

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
}
