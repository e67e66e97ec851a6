import platform
import subprocess
import sys
import types

import psutil
import pytest
import torch

from cascade.memory import micro_batch


@pytest.mark.parametrize(("available", "expected"), [(1e12, 32), (2 * 32e6, 32), (2 * 31e6, 16), (3e6, 1), (1e3, 1)])
def test_micro_batches_shrink_with_free_memory(monkeypatch, available, expected):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=available))
    assert micro_batch(1e6, "cpu", 32, 512) == expected


def test_on_a_gpu_its_own_memory_counts(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(1e9), int(80e9)))
    assert micro_batch(1e6, "cuda:0", 32, 512) == 256
    assert micro_batch(1e5, "cuda:0", 32, 512) == 512


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library, whose memory is left as it is")
def test_memory_that_was_freed_is_taken_again():
    """Page faults of twenty large tensors, one after the other, where their memory is kept hardly any, after a few
    that find out how they are aligned."""
    faults = """
import resource, torch
{before}
def count():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for round in range(40):
    if round == 20:
        start = count()
    torch.ones(16_000_000)
print(count() - start)
"""
    kept = "from cascade.memory import keep_freed; keep_freed()"
    runs = [subprocess.run([sys.executable, "-c", faults.format(before=b)], capture_output=True, text=True, check=True)
            for b in ("", kept)]  # fmt: skip
    before, after = (int(run.stdout) for run in runs)
    assert after < 0.5 * before
