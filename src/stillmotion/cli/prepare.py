"""`data prepare`: clips into a latent cache, by one process or several."""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stillmotion.cli.clips import ctrl_c
from stillmotion.cli.parsing import Parser
from stillmotion.cli.screen import Screen
from stillmotion.cli.verb import Verb
from stillmotion.errors import Cancelled, ConfigError, FileError

TOYWORLD = "toyworld"
TOYWORLD_SIDE, USUAL_SIDE = 128, 256
_SECONDS_BETWEEN_LOOKS = 0.5
_WORDS = {"encoded": "encoded", "kept": "there from before", "broken": "broken (see quarantine.jsonl)"}


def _arguments(parser: Parser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="The clips: a folder with a text beside each, a folder with metadata.csv or metadata.jsonl, a CSV of videoid "
        "and name, tar shards (clips-{000..009}.tar), or one clip.",
    )
    parser.add_argument(
        "-o", "--out", required=True, metavar="PATH", help="The cache: a new folder, or one to be gone on with."
    )
    parser.add_argument("--video-folder", metavar="PATH", help="Where the files of a CSV of videoids lie.")
    model = parser.add_argument_group("what encodes")
    model.add_argument("-m", "--model", default=TOYWORLD, help="The image model whose VAE encodes. [toyworld]")
    model.add_argument("--vae", metavar="PATH", help="Another VAE than the model's own: a folder or a file.")
    model.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps, or auto for the best there is. [auto]")
    model.add_argument(
        "--vae-dtype",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="How the VAE computes; half precision is faster on a GPU, and less exact. [float32]",
    )
    model.add_argument("--batch", type=int, default=8, metavar="N", help="How many frames are encoded at once. [8]")
    kept = parser.add_argument_group("what is kept")
    kept.add_argument("-W", "--width", type=int, metavar="N", help="Width in pixels. [256; 128 for the toyworld]")
    kept.add_argument("-H", "--height", type=int, metavar="N", help="Height in pixels. [256; 128 for the toyworld]")
    kept.add_argument("--buckets", action="store_true", help="Keep about each clip's own shape, in the same area.")
    kept.add_argument("--keep-every", type=int, default=1, metavar="N", help="Cache every Nth frame only. [1]")
    kept.add_argument(
        "--dtype",
        choices=("float16", "bfloat16", "float32"),
        default="float16",
        help="How the latents are stored. [float16]",
    )
    several = parser.add_argument_group("several processes")
    several.add_argument("--workers", type=int, default=1, metavar="N", help="Processes on this machine. [1]")
    several.add_argument(
        "--worker",
        metavar="I/N",
        help="Do the Ith of N shares, counted from 0: for several machines. By default what torchrun says, else all.",
    )


def _prepare(arguments: argparse.Namespace, screen: Screen) -> int:
    from stillmotion.data import open_source
    from stillmotion.data.sources import without_caption

    source = open_source(arguments.source, video_folder=arguments.video_folder)
    _check_counts(arguments)
    empty = without_caption(source)
    said = ", none with a caption" if empty == len(source) else f", {empty} of them without a caption" if empty else ""
    screen.note(f"{len(source)} clip{'s' * (len(source) != 1)} in {source.name}{said}")
    if arguments.workers > 1:
        return _spread(arguments, screen, source)
    return _fill(arguments, screen, source)


def _fill(arguments: argparse.Namespace, screen: Screen, source: Any) -> int:
    """Do this process's share."""
    from stillmotion.data import prepare

    worker, num_workers = _share(arguments.worker)
    vae, header = _vae_and_header(arguments, source)
    encode = _encoder(arguments, vae, worker)
    states: Counter[str] = Counter()
    with screen.progress() as progress, ctrl_c() as pressed:
        events = prepare(
            source,
            encode,
            arguments.out,
            header,
            frames_per_batch=arguments.batch,
            worker=worker,
            num_workers=num_workers,
            cancel=pressed,
        )
        for event in events:
            states[event.state] += 1
            if event.state == "broken":
                screen.note(f"set aside: {event.reason}")
            progress.show("encoding clips", event.done, event.total)
    counted = ", ".join(f"{states[state]} {word}" for state, word in _WORDS.items() if states[state])
    screen.note(f"{counted or 'no clips in this share'}; {header.width}x{header.height}, {header.dtype}")
    screen.result(str(arguments.out))
    return 0


def _vae_and_header(arguments: argparse.Namespace, source: Any) -> tuple[Any, Any]:
    """Return the VAE, in float32 on the CPU, and the header of the cache that it makes."""
    from stillmotion.data import CacheHeader, ClipRecipe, vae_fingerprint
    from stillmotion.devices import choose_device
    from stillmotion.t2i.quiet import hide_loading_bars

    side = TOYWORLD_SIDE if arguments.model == TOYWORLD else USUAL_SIDE
    recipe = ClipRecipe(
        width=arguments.width or side, height=arguments.height or side, buckets=arguments.buckets, num_frames=1
    )
    choose_device(arguments.device)  # a wrong name is told before the weights are read
    hide_loading_bars()
    vae = _load_vae(arguments.model, arguments.vae)
    header = CacheHeader(
        vae=vae_fingerprint(vae.state_dict()),
        scaling_factor=float(vae.config.scaling_factor),
        width=recipe.width,
        height=recipe.height,
        dtype=arguments.dtype,
        source=source.fingerprint(),
        keep_every=arguments.keep_every,
        buckets=recipe.sizes if arguments.buckets else (),
    )
    return vae, header


def _encoder(arguments: argparse.Namespace, vae: Any, worker: int) -> Callable[..., Any]:
    """Return the VAE's encoder, on the device; several workers share a machine's GPUs evenly."""
    import torch

    from stillmotion.devices import choose_device

    device = choose_device(arguments.device)
    if arguments.device == "auto" and device.type == "cuda":
        device = torch.device("cuda", worker % torch.cuda.device_count())
    torch.nn.Module.to(vae, device=device, dtype=getattr(torch, arguments.vae_dtype))

    def encode(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        posterior = vae.encode(images.to(vae.device, vae.dtype)).latent_dist
        return posterior.mean, posterior.logvar

    return encode


def _load_vae(model: str, vae: str | None) -> Any:
    """Return the VAE in float32: the one named, or the model's."""
    from stillmotion.animate.model_files import known_model
    from stillmotion.t2i import load_t2i, load_vae

    source = vae or known_model(model)
    local = vae is not None or Path(source).exists()
    loaded = load_vae(source) if local else load_t2i(source).vae
    return loaded.eval().requires_grad_(requires_grad=False)


def _spread(arguments: argparse.Namespace, screen: Screen, source: Any) -> int:
    """Start a process per share and show how far all are; Ctrl-C stops them, and what is finished is kept."""
    from stillmotion.data.cache_folder import begin

    if arguments.worker is not None:
        raise ConfigError("--worker: it names the one share that this process does; leave --workers out")
    count, num_clips = arguments.workers, len(source)
    begin(Path(arguments.out), _vae_and_header(arguments, source)[1], num_clips)  # what is wrong is told here, once
    threads = str(max((os.cpu_count() or 1) // count, 1))
    running = []
    for number in range(count):
        errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  # closed when the process has ended
        words = [*_words_of(arguments), "--worker", f"{number}/{count}", "--plain"]
        process = subprocess.Popen(  # noqa: S603  # this program itself
            [sys.executable, "-m", "stillmotion", "data", "prepare", *words],
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,  # Ctrl-C comes to them through us, once
            env={"OMP_NUM_THREADS": threads, **os.environ},
        )
        running.append((process, errors))
    processes = [process for process, _ in running]
    with screen.progress() as progress, ctrl_c() as pressed:
        try:
            while any(process.poll() is None for process in processes):
                if pressed() or any(process.poll() not in (None, 0) for process in processes):
                    break
                progress.show("encoding clips", _num_settled(Path(arguments.out)), num_clips)
                time.sleep(_SECONDS_BETWEEN_LOOKS)
        finally:
            for process in processes:
                process.send_signal(signal.SIGINT)  # does nothing to one that has ended
            for process in processes:
                process.wait()
        progress.show("encoding clips", _num_settled(Path(arguments.out)), num_clips)
    return _ended(running, screen, arguments.out, stopped=pressed())


def _ended(running: list[tuple[Any, Any]], screen: Screen, out: str, *, stopped: bool) -> int:
    """Tell what the processes said; raise the error of one that failed."""
    faults = []
    for process, errors in running:
        errors.seek(0)
        text = errors.read().strip()
        errors.close()
        for line in text.splitlines():
            if line.startswith("set aside: "):
                screen.note(line)
        if process.returncode not in (0, 130):
            faults.append(text.rpartition("error: ")[2] or f"a process ended with code {process.returncode}")
    if faults and not stopped:
        raise FileError(faults[0])
    if stopped:
        raise Cancelled("Stopped. The finished clips are kept; the same command does the rest.")
    screen.result(str(out))
    return 0


def _words_of(arguments: argparse.Namespace) -> list[str]:
    """Return the command line again, for a process that does a share of it."""
    flags = {name: getattr(arguments, name) for name in ("out", "video_folder", "model", "vae", "device", "vae_dtype")}
    flags |= {name: getattr(arguments, name) for name in ("batch", "width", "height", "keep_every", "dtype")}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items() if value is not None]
    return [arguments.source, *words, *(["--buckets"] if arguments.buckets else [])]


def _num_settled(folder: Path) -> int:
    return sum(1 for path in folder.glob("clips/*/*") if path.suffix in (".safetensors", ".broken"))


def _share(said: str | None) -> tuple[int, int]:
    """Return this process's share and how many there are."""
    if said is None:
        return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))  # torchrun's names
    found = re.fullmatch(r"(\d+)/(\d+)", said)
    if not found or int(found[1]) >= int(found[2]):
        raise ConfigError(f"--worker: expected I/N with I from 0 to N - 1, as in 0/4, got {said!r}")
    return int(found[1]), int(found[2])


def _check_counts(arguments: argparse.Namespace) -> None:
    for name in ("batch", "keep_every", "workers", "width", "height"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')}: expected an integer >= 1, got {value}")


VERBS = {
    "data prepare": Verb(
        description="Encode clips into a latent cache, once, so that training neither decodes nor encodes: of each frame "
        "the VAE's mean and log-variance. Where training clips start and how fast they run is still drawn anew, each time."
        "\n\nIt can be stopped and killed at any time, and the same command goes on. Broken clips are set aside in "
        "quarantine.jsonl; if more than 5 % are, it stops.",
        add_arguments=_arguments,
        run=_prepare,
    ),
}
