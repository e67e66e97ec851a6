"""Differences of low rank, against the closed form."""

import pytest
import torch

from cascade.hub.low_rank import add_difference, low_rank_difference


def network(seed):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Conv2d(12, 16, 3), torch.nn.Linear(30, 20))


def test_the_error_is_the_singular_values_that_are_left_out():
    before, after = network(0).state_dict(), network(1).state_dict()
    for rank in (1, 4, 8):
        student = network(0)
        add_difference(student, low_rank_difference(before, after, rank))
        for name in ("0.weight", "1.weight"):
            left = torch.linalg.svdvals((after[name] - before[name]).flatten(1))[rank:].norm()
            error = (student.state_dict()[name] - after[name]).norm()
            assert error == pytest.approx(left.item(), rel=2e-3)
        assert torch.allclose(student.state_dict()["0.bias"], after["0.bias"], atol=1e-3)


def test_what_is_stored_is_smaller():
    before, after = network(0).state_dict(), network(1).state_dict()
    stored = sum(value.numel() for value in low_rank_difference(before, after, 2).values())
    assert stored == 2 * (16 + 12 * 9) + 16 + 2 * (20 + 30) + 20


def test_a_difference_of_another_network_is_refused():
    before, after = network(0).state_dict(), network(1).state_dict()
    difference = low_rank_difference(before, after, 2)
    with pytest.raises(ValueError, match=r"the network has no 1\.weight"):
        add_difference(torch.nn.Sequential(torch.nn.Conv2d(12, 16, 3)), {"1.weight": difference["1.bias"]})
    with pytest.raises(ValueError, match="another shape"):
        add_difference(torch.nn.Sequential(torch.nn.Conv2d(12, 8, 3)), {"0.bias": difference["0.bias"]})
    with pytest.raises(ValueError, match="networks that differ"):
        low_rank_difference(before, {}, 2)
