"""The adaptive augmentation of the discriminator, against what the paper says of it."""

import numpy as np
import pytest
import torch

from cascade.gan import augmentation as ada
from cascade.gan.augmentation import AdaptiveAugmentation


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_probability_follows_how_often_real_images_are_known():
    """Up by 0.05 where E[sign D] is above 0.6, down below, at every interval."""
    found = AdaptiveAugmentation(interval=2)
    steps = []
    for share in (1.0, 1.0, 1.0, 0.9, 0.9, 0.5, 0.8, 0.8):
        logits = torch.where(torch.arange(100) < 100 * share, 1.0, -1.0) * torch.rand(100, generator=seeded())
        found.observe(logits)
        steps.append(found.p)
    # r: 1, 0.9, then 0.4, then 0.6 exactly
    assert steps == [0.0, 0.05, 0.05, 0.1, 0.1, 0.05, 0.05, 0.05]
    assert found.r == pytest.approx(0.6)
    for _ in range(60):
        found.observe(torch.ones(4))
    assert found.p == 1.0  # and no more


def test_its_state_goes_on_where_it_was():
    one, other = AdaptiveAugmentation(interval=3), AdaptiveAugmentation(interval=3)
    logits = [torch.randn(10, generator=seeded(n)) + 2 for n in range(11)]
    for part in logits[:5]:
        one.observe(part)
    other.load_state_dict(one.state_dict())
    for part in logits[5:]:
        one.observe(part)
        other.observe(part)
    assert one.state_dict() == other.state_dict()
    assert one.p > 0


def test_nothing_is_altered_at_first():
    images = torch.rand(2, 1, 8, 8, generator=seeded())
    assert AdaptiveAugmentation()(images, seeded()) is images


def test_every_alteration_is_chosen_for_a_share_of_the_samples():
    images = 2 * torch.rand(400, 1, 6, 6, generator=seeded()) - 1
    altered = AdaptiveAugmentation(p=0.2)(images, seeded(1))
    changed = (altered != images).flatten(1).any(1).float().mean()
    assert changed == pytest.approx(1 - 0.8**5, abs=0.07)


def test_light_is_scaled_by_0_6_to_1_2():
    unit = torch.rand(2000, 1, 2, 2, generator=seeded()) + 0.1
    factor = (ada.scaled(unit, seeded(1)) / unit).flatten(1)
    torch.testing.assert_close(factor, factor[:, :1].expand_as(factor))
    assert (factor.min().item(), factor.max().item()) == pytest.approx((0.6, 1.2), abs=0.01)
    assert factor.mean().item() == pytest.approx(0.9, abs=0.02)


def test_noise_is_of_a_tenth():
    unit = torch.zeros(4, 1, 40, 40)
    assert ada.noisy(unit, seeded()).std().item() == pytest.approx(0.1, rel=0.03)


@pytest.mark.parametrize("size", [(40, 50), (12, 40, 30)])
def test_a_region_is_shuffled(size):
    unit = torch.arange(float(np.prod(size))).reshape(1, 1, *size).repeat(3, 1, *(1,) * len(size))
    found = ada.shuffled(unit, seeded())
    for before, after in zip(unit[:, 0], found[:, 0], strict=True):
        assert torch.equal(before.flatten(), after.flatten().sort().values)  # no voxel is lost
        moved = (before != after).nonzero()
        sides = (moved.max(0).values - moved.min(0).values + 1).tolist()
        assert sides == [min(25, n) for n in size]
        assert len(moved) > 0.9 * np.prod(sides)
    assert not torch.equal(found[0], found[1])


def test_a_region_is_filled():
    unit = torch.rand(5, 1, 20, 32, 32, generator=seeded())
    found = ada.inpainted(unit, seeded(1))
    for before, after in zip(unit[:, 0], found[:, 0], strict=True):
        changed = before != after
        assert changed.sum() == 15**3
        assert after[changed].unique().numel() == 1
        assert 0 <= after[changed][0] <= 1


def test_light_falls_along_an_axis():
    unit = torch.ones(60, 1, 5, 9, 7)
    found = ada.falling(unit, seeded())[:, 0]
    axes = set()
    for one in found:
        assert one.max() == 1
        along = [n for n in range(3) if (one.amax(n) - one.amin(n)).max() > 0]
        assert len(along) == 1
        line = one.movedim(along[0], 0)[:, 0, 0]
        torch.testing.assert_close(line.diff(), line.diff()[:1].expand(len(line) - 1), atol=1e-5, rtol=0)
        axes.add((along[0], bool(line[0] < line[-1])))
    assert len(axes) == 6


def test_gradients_go_through_alterations():
    images = torch.rand(4, 1, 16, 16, generator=seeded()).requires_grad_(True)
    AdaptiveAugmentation(p=1.0)(images, seeded()).sum().backward()
    assert images.grad.abs().sum() > 0


def test_alterations_depend_on_the_generator_alone():
    images = torch.rand(4, 1, 16, 16, generator=seeded())
    once, twice, other = (AdaptiveAugmentation(p=0.7)(images, seeded(n)) for n in (3, 3, 4))
    assert torch.equal(once, twice)
    assert not torch.equal(once, other)


@pytest.mark.parametrize("options", [{"p": 1.5}, {"target": 1.0}, {"interval": 0}, {"step": -0.1}])
def test_augmentation_that_cannot_be_is_refused(options):
    with pytest.raises(ValueError, match="augmentation needs p in"):
        AdaptiveAugmentation(**options)
