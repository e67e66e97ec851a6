"""What a processor is asked to compute in."""

import pytest
import torch

from cascade.generation.load import fast_dtype, load
from cascade.hub.embedded import embedded
from cascade.processor import fast_bfloat16


@pytest.mark.parametrize(
    ("features", "fast"),
    [
        ({"architecture": "x86_64", "avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"architecture": "x86_64", "avx2": True, "avx512_bf16": True, "amx_bf16": False}, True),
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": True}, True),
        ({"architecture": "aarch64", "bf16": True}, True),
        ({}, False),
    ],
)
def test_bfloat16_is_chosen_where_there_are_instructions_for_it(features, fast, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert fast_bfloat16("cpu") == fast
    assert fast_dtype("cpu") == ("bfloat16" if fast else "float32")


def test_bfloat16_that_is_emulated_is_warned_of(monkeypatch, caplog):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    load(embedded("nuclei2d"), "cpu", "bfloat16")
    assert "cpu emulates bfloat16" in caplog.text
    caplog.clear()
    load(embedded("nuclei2d"), "cpu")
    assert not caplog.text
