"""Freed memory stays with the process, so that the next tensor needs no new pages."""

import platform
import subprocess
import sys

import pytest
from conftest import ROOT

CODE = """
import resource, sys
sys.path.insert(0, "src")
import torch
from losslab.allocator import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
torch.set_num_threads(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this is not the GNU C library")
def test_a_freed_block_is_taken_again() -> None:
    """Twenty tensors of 64 MiB, one after another, take the pages of a few; without, each takes its own."""
    faults = {
        word: int(
            subprocess.run(
                [sys.executable, "-c", CODE, word], capture_output=True, text=True, check=True, cwd=ROOT
            ).stdout
        )
        for word in ("kept", "plain")
    }
    assert faults["kept"] < faults["plain"] / 2  # the heap grows in the first rounds
