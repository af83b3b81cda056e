"""Freed memory is kept: a second round over the same blocks makes hardly any new pages."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from stillmotion.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    for _ in range(4):
        torch.ones(16_000_000).mul_(2)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
faults()
first = faults()
print(faults() - first)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_the_same_blocks_are_used_again() -> None:
    def new_pages(mode: str) -> int:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
        run = [sys.executable, "-c", SCRIPT, mode]
        return int(subprocess.run(run, capture_output=True, text=True, check=True, env=plain).stdout)

    assert new_pages("keep") < 0.1 * new_pages("default")
