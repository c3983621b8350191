"""Freed memory stays in the process: a pass of the network causes few page faults."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PASSES = """
import resource, sys
import torch
from catalogproc.network.memory import keep_freed_memory
if sys.argv[1] == "raised":
    assert keep_freed_memory()
x, weight = torch.randn(4096, 128), torch.randn(512, 128)
def work():
    torch.nn.functional.gelu(x @ weight.T)  # 8 MB, twice
for _ in range(3):  # until the heap is as large as it gets
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not the GNU C library")
def test_pages_are_mapped_once_with_the_malloc_threshold_of_dask():
    environment = os.environ | {"MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}

    def faults(how: str) -> int:
        result = subprocess.run(
            [sys.executable, "-c", PASSES, how],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return int(result.stdout)

    pages = 10 * 2 * 4096 * 512 * 4 // 4096
    assert faults("default") > pages / 2
    assert faults("raised") < pages / 5
