"""Claims measured side by side, each in a process of its own: two cores do more for two claims than for one."""

import os
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from time import perf_counter

import torch

from stillmotion.claims.brought import measuring
from stillmotion.claims.finding import Budget, Claim, Finding, Progress
from stillmotion.claims.kept import keep
from stillmotion.errors import StillmotionError
from stillmotion.t2i.quiet import hide_loading_bars

Told = Progress | tuple[Finding, float]
"""How far a claim is, and at last what was found in how many seconds."""


def measured(claims: Sequence[Claim], budget: Budget, *, jobs: int = 1) -> Iterator[tuple[str, Told]]:
    """Measure claims, up to `jobs` at once; yield each one's name with how far it is, and with its finding.

    Every finding is kept in the budget's folder when it is there. Raises `StillmotionError` where a claim cannot be measured.
    """
    if jobs == 1 or len(claims) == 1:
        for claim in claims:
            yield from ((claim.name, told) for told in _measuring(claim, budget))
        return
    waiting = list(claims)
    running: dict[Connection, tuple[str, BaseProcess]] = {}
    threads = max((os.cpu_count() or 1) // jobs, 1)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                claim = waiting.pop(0)
                ours, theirs = get_context("spawn").Pipe(duplex=False)
                told_what = (theirs, claim, budget, threads)
                process: BaseProcess = get_context("spawn").Process(target=_measure, args=told_what, daemon=True)
                process.start()
                theirs.close()
                running[ours] = (claim.name, process)
            for connection in wait(running):
                assert isinstance(connection, Connection)
                yield from _heard(connection, running)
    finally:
        for _, process in running.values():
            process.terminate()
            process.join()


def _heard(connection: Connection, running: dict[Connection, tuple[str, BaseProcess]]) -> Iterator[tuple[str, Told]]:
    """Yield what one process says; let go of it when it has said all."""
    name, process = running[connection]
    try:
        said = connection.recv()
    except EOFError:
        process.join()
        del running[connection]
        if process.exitcode:
            raise StillmotionError(
                f"{name}: its process ended with {process.exitcode} before the finding; what it said stands above. Measure it "
                f"alone by `stillmotion claims {name}`."
            ) from None
        return
    if isinstance(said, StillmotionError):
        raise said
    yield name, said


def _measure(connection: Connection, claim: Claim, budget: Budget, threads: int) -> None:
    """Measure one claim in a process of its own, and say so."""
    torch.set_num_threads(threads)
    hide_loading_bars()
    try:
        for told in _measuring(claim, budget):
            connection.send(told)
    except StillmotionError as error:
        connection.send(error)
    connection.close()


def _measuring(claim: Claim, budget: Budget) -> Iterator[Told]:
    began = perf_counter()
    for told in measuring(claim, budget):
        if isinstance(told, Finding):
            seconds = perf_counter() - began
            keep(claim, budget, told, seconds)
            yield told, seconds
        else:
            yield told
