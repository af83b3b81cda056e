"""A latent cache by several processes of this machine: each does a share, and tells us of every clip through a pipe."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from stillmotion.allocator import keep_freed_memory
from stillmotion.data import Prepared
from stillmotion.errors import Cancelled, FileError, StillmotionError
from stillmotion.training.preparing.config import PrepareConfig
from stillmotion.training.preparing.share import fill_share, opened

_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_TO_STOP = 2.0


def spread(config: PrepareConfig, num_clips: int, cancel: Callable[[], bool]) -> Iterator[Prepared]:
    """Start a process per share and yield what becomes of each clip, counted over all of them.

    All are stopped when one fails, when `cancel` says so, and when the iteration is left; what is finished is kept.

    Raises:
        StillmotionError: What one of the processes raised.
        FileError: One of them ended without saying why.
        Cancelled: `cancel` said so.
    """
    running = _started(config)
    settled = 0
    try:
        while running:
            if cancel():
                raise Cancelled("Stopped. The finished clips are kept; the same command does the rest.")
            for pipe in wait(list(running), timeout=_SECONDS_BETWEEN_LOOKS):
                assert isinstance(pipe, Connection)
                told = _told(pipe)
                if isinstance(told, Prepared):
                    settled += 1
                    yield replace(told, done=settled, total=num_clips)
                elif told is not None:
                    raise told
                else:
                    _check_end(running.pop(pipe))
    finally:
        _stop(running)


def _started(config: PrepareConfig) -> dict[Connection, BaseProcess]:
    context = get_context("spawn")  # a forked process could not use a GPU
    running: dict[Connection, BaseProcess] = {}
    with _deaf_to_ctrl_c():
        for number in range(config.workers):
            ours, theirs = context.Pipe()
            share = config.replace(workers=1, worker=(number, config.workers))
            process = context.Process(target=_do_share, args=(share, theirs))
            process.start()
            theirs.close()  # so that the pipe ends when the process does
            running[ours] = process
    return running


def _stop(running: dict[Connection, BaseProcess]) -> None:
    """Ask the processes to stop, and end those that do not soon: a clip is in the cache whole or not at all."""
    for pipe in running:
        pipe.close()  # which is how they are asked
    latest = time.monotonic() + _SECONDS_TO_STOP
    for process in running.values():
        process.join(max(latest - time.monotonic(), 0))
        process.terminate()  # does nothing to one that has ended
        process.join()


def _do_share(config: PrepareConfig, pipe: Connection) -> None:
    """Do one share, as a process: send what becomes of each clip, or the error that ends it."""
    keep_freed_memory()
    assert config.worker is not None
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max((os.cpu_count() or 1) // config.worker[1], 1))
    try:
        _, clips = fill_share(config, opened(config), pipe.poll)  # there is something to read once the pipe is closed
        for clip in clips:
            pipe.send(clip)
    except (Cancelled, ConnectionError):
        return  # nobody listens any more
    except StillmotionError as error:
        pipe.send(error)


def _told(pipe: Connection) -> Prepared | StillmotionError | None:
    """Return what a process says next; None where it has ended."""
    try:
        told: Prepared | StillmotionError = pipe.recv()
    except (EOFError, ConnectionError):
        return None
    return told


def _check_end(process: BaseProcess) -> None:
    process.join()
    if process.exitcode:
        raise FileError(f"a process ended with code {process.exitcode}")


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach, from their first moment: it comes to them through us, once."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # started with the first process otherwise, it would let Ctrl-C through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
