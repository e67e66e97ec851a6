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
