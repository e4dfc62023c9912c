"""Freed memory stays: a second pass over the same sizes touches no new page."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from data2vec.training.allocator import keep_freed_memory

def faults():  # of a pass that looks a little like a step: several sizes, alive together
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    alive = [torch.ones(size << 18) for size in (40, 8, 33, 40, 16, 4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = [faults() for _ in range(3)][-1]
done = keep_freed_memory()
after = [faults() for _ in range(6)][-1]
print(int(done), before, after)
"""


def test_a_second_pass_touches_no_new_page() -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("glibc's malloc is meant")
    out = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    done, before, after = map(int, out.split())
    if not done:
        pytest.skip("no glibc here")
    assert before > 10_000, out
    assert after < before / 4, out
