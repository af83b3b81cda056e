"""`bench step` and `bench plug`: timings against diffusers, on this machine."""

import argparse

from stillmotion.cli.parsing import Parser
from stillmotion.cli.screen import Screen
from stillmotion.cli.verb import Verb


def _step_arguments(parser: Parser) -> None:
    parser.add_argument("--size", default="tiny", metavar="NAME", help="sd15, half or tiny widths. [tiny]")
    parser.add_argument("--dtype", default="float32", metavar="NAME", help="float32, bfloat16 or float16. [float32]")
    parser.add_argument("--pairs", type=int, default=5, metavar="N", help="Pairs of runs, the median counts. [5]")
    parser.add_argument("--num-frames", type=int, default=8, metavar="N", help="Frames of the clip. [8]")
    parser.add_argument("--side", type=int, default=16, metavar="N", help="Rows and columns of the latents. [16]")


def _step(arguments: argparse.Namespace, screen: Screen) -> int:
    import torch

    from stillmotion.bench import SIZES, bench_step
    from stillmotion.errors import ConfigError

    if arguments.size not in SIZES:
        raise ConfigError(f"--size: expected one of {', '.join(SIZES)}, got {arguments.size!r}")
    if arguments.dtype not in ("float32", "bfloat16", "float16"):
        raise ConfigError(f"--dtype: expected float32, bfloat16 or float16, got {arguments.dtype!r}")
    timing = bench_step(
        size=arguments.size,
        dtype=getattr(torch, arguments.dtype),
        pairs=arguments.pairs,
        num_frames=arguments.num_frames,
        side=arguments.side,
    )
    rows = [
        ["times faster than diffusers' motion UNet, median", f"{timing.ratio:.2f}"],
        ["pairs", ", ".join(f"{b / a:.2f}" for a, b in zip(timing.ours, timing.theirs, strict=True))],
        ["share of this machine's matrix rate", f"{timing.share_of_peak:.0%}"],
        ["share of the step spent in motion modules", f"{timing.motion_share:.0%}"],
        ["relative difference of the outputs", f"{timing.difference:.1e}"],
    ]
    screen.table([f"{timing.size}, {timing.dtype}, {timing.num_threads} threads", ""], rows)
    return 0


def _plug_arguments(parser: Parser) -> None:
    parser.add_argument("--size", default="sd15", metavar="NAME", help="sd15, half or tiny widths. [sd15]")


def _plug(arguments: argparse.Namespace, screen: Screen) -> int:
    from stillmotion.bench import SIZES, bench_plug
    from stillmotion.errors import ConfigError

    if arguments.size not in SIZES:
        raise ConfigError(f"--size: expected one of {', '.join(SIZES)}, got {arguments.size!r}")
    timing = bench_plug(size=arguments.size)
    rows = [
        ["plug", f"{timing.ours * 1e3:.2f} ms", f"{timing.copied / 1e6:.1f} MB"],
        ["UNetMotionModel.from_unet2d", f"{timing.theirs * 1e3:.0f} ms", f"{timing.copied_by_diffusers / 1e6:.0f} MB"],
    ]
    screen.table([f"{timing.size} widths", "time", "copied"], rows)
    return 0


VERBS = {
    "bench step": Verb(
        description="Time a denoising step against diffusers' own motion UNet: same weights, dtype and threads, in turn.",
        add_arguments=_step_arguments,
        run=_step,
    ),
    "bench plug": Verb(
        description="Time plugging motion in, and count the bytes it copies, against diffusers' from_unet2d.",
        add_arguments=_plug_arguments,
        run=_plug,
    ),
}
