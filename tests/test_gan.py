"""The conditional GAN's parts against closed forms: position, discriminator, objectives, collapse."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.nn import functional as F

from cascade.annotation import Annotation
from cascade.gan.augmentation import AdaptiveAugmentation
from cascade.gan.collapse import Watch
from cascade.gan.condition import binary, condition_of, condition_of_image, position_of
from cascade.gan.discriminator import PatchDiscriminator, detail
from cascade.gan.encoder import ConditionedEncoder
from cascade.gan.losses import DiscriminatorLoss, GeneratorLoss, gradient_penalty, relativistic
from cascade.gan.networks import blurred, new_discriminator, new_generator, painted
from cascade.gan.position import position
from cascade.optics.window import Window
from cascade.rng import stream
from cascade.sketch.settings import SketchSettings


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ball(size: int, radius: float, spacing=(1.0, 1.0, 1.0)) -> np.ndarray:
    axes = [(np.arange(round(size / s)) + 0.5) * s - size / 2 for s in spacing]
    return sum(np.square(axis) for axis in np.ix_(*axes)) <= radius**2


# Position


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 0.5, 0.5)])
def test_positions_around_a_ball_are_those_of_the_equation(spacing):
    """f_pos = tanh(d/α) inside, tanh(−d/β) outside, d = |radius − r| in voxels of the last axis."""
    radius, alpha, beta = 14.0, 20.0, 40.0
    found = position(ball(48, radius, spacing), spacing, alpha=alpha, beta=beta)
    axes = [(np.arange(n) + 0.5) * s - 24 for n, s in zip(found.shape, spacing, strict=True)]
    away = (radius - np.sqrt(sum(np.square(axis) for axis in np.ix_(*axes)))) / spacing[-1]
    wanted = np.where(away > 0, np.tanh(away / alpha), np.tanh(away / beta))
    assert np.abs(found - wanted).max() < max(spacing) / spacing[-1] / alpha  # a voxel
    assert np.abs(found - wanted).mean() < 0.4 / alpha
    np.testing.assert_array_equal(found > 0, ball(48, radius, spacing))


def test_the_border_of_the_image_is_no_boundary():
    inside = np.ones((4, 60), bool)
    inside[:, :20] = False
    found = position(inside, (1.0, 1.0), alpha=10.0, beta=5.0)
    assert found[0, 59] == pytest.approx(np.tanh(39.5 / 10))
    assert found[0, 0] == pytest.approx(np.tanh(-19.5 / 5))
    assert (position(np.ones((3, 4), bool), (1.0, 1.0)) == 1).all()
    assert (position(np.zeros((3, 4), bool), (1.0, 1.0)) == -1).all()


def test_of_large_images_positions_are_nearly_the_same(monkeypatch):
    inside = ball(64, 20.0, (1.0, 1.0, 1.0))
    exact = position(inside, (1.0, 1.0, 1.0), alpha=50.0, beta=50.0)
    monkeypatch.setattr("cascade.gan.position._MANY", 20_000)
    coarse = position(inside, (1.0, 1.0, 1.0), alpha=50.0, beta=50.0)
    assert np.abs(exact - coarse).max() < 2.5 / 50
    assert np.abs(exact - coarse).mean() < 0.6 / 50
    np.testing.assert_array_equal(exact > 0, coarse > 0)


def test_alpha_and_beta_have_to_be_above_nought():
    for given in ({"alpha": 0.0}, {"beta": -1.0}, {"alpha": float("nan")}):
        with pytest.raises(ValueError, match=f"{next(iter(given))} must be a number above 0"):
            position(np.eye(4, dtype=bool), (1.0, 1.0), **given)
    with pytest.raises(ValueError, match="2 axes, and there are 3 spacings"):
        position(np.eye(4, dtype=bool), (1.0, 1.0, 1.0))


# What the generator is told


def two_cells() -> Annotation:
    labels = np.zeros((24, 24), np.uint16)
    labels[4:12, 4:20], labels[12:20, 4:20] = 3, 8
    return Annotation.of_labels(labels, (0.5, 0.5))


def test_membranes_are_where_labels_meet():
    found = binary(two_cells().labels, (0.5, 0.5), SketchSettings(structure="membranes", thickness_um=1.0))
    assert set(np.unique(found)) == {-1.0, 1.0}
    assert (found[11:13, 6:18] == 1).all()  # between the cells
    assert (found[7:9, 6:18] == -1).all()  # inside one
    cells = binary(two_cells().labels, (0.5, 0.5), SketchSettings())
    np.testing.assert_array_equal(cells == 1, two_cells().labels > 0)


def test_a_sketch_is_as_bright_as_the_window_has_it():
    settings = SketchSettings(brightness=(300.0,), background=(100.0,))
    window = Window(100.0, 500.0, gamma=1.0)
    found = condition_of(two_cells(), "sketch", settings, window, np.random.default_rng(0))
    np.testing.assert_allclose(np.unique(found), [-1.0, 0.5])
    image = np.where(two_cells().labels == 3, 300.0, 100.0).astype(np.float32)
    own = condition_of_image(two_cells(), image, "sketch", SketchSettings(), window)
    np.testing.assert_allclose(own[two_cells().labels == 3], 0.0, atol=1e-6)
    np.testing.assert_allclose(own[two_cells().labels == 8], -1.0, atol=1e-6)


def test_the_specimen_is_what_cells_fill_or_what_is_said():
    labels = np.pad(two_cells().labels, 40)
    found = position_of(Annotation.of_labels(labels, (0.5, 0.5)), 10.0, 10.0)
    assert (found[labels > 0] > 0).all()
    assert found[0, 0] < 0
    assert (found > 0).sum() < 1.5 * (labels > 0).sum()
    foreground = np.zeros(labels.shape, bool)
    foreground[:, :50] = True
    own = position_of(Annotation.of_labels(labels, (0.5, 0.5), foreground=foreground), 10.0, 10.0)
    np.testing.assert_array_equal(own > 0, foreground)


def test_a_quality_cannot_be_asked_of_what_has_no_boundary():
    empty = Annotation.of_labels(np.zeros((8, 8), np.uint16), (1.0, 1.0))
    full = Annotation.of_labels(np.ones((8, 8), np.uint16), (1.0, 1.0))
    assert (position_of(empty, 10.0, 10.0) == -1).all()
    assert (position_of(full, 10.0, 10.0) == 1).all()
    with pytest.raises(ValueError, match="this annotation has no foreground: leave them out"):
        position_of(empty, 10.0, 10.0, asked=True)
    with pytest.raises(ValueError, match="this annotation has no outside: leave them out"):
        position_of(full, 10.0, 10.0, asked=True)


# The discriminator


@pytest.mark.parametrize(("size", "patches"), [((32, 48), (4, 6)), ((16, 24, 32), (2, 3, 4))])
@pytest.mark.parametrize("norm", ["none", "instance"])
def test_each_patch_is_judged_by_itself(size, patches, norm):
    torch.manual_seed(0)
    judge = PatchDiscriminator(dimensions=len(size), block_out_channels=(4, 8, 8), norm=norm)
    image = torch.randn(2, 1, *size, requires_grad=True)
    logits = judge(image, torch.randn(2, 1, *size)).logits
    assert logits.shape == (2, 1, *patches)
    if norm == "none":
        logits.flatten(1)[0, 0].backward()  # what the first patch depends on
        assert image.grad[0].abs().sum() > 0
        assert image.grad[0, 0][..., -4:].abs().sum() == 0
        assert image.grad[1].abs().sum() == 0


def test_a_judge_that_is_told_where_looks_at_it():
    torch.manual_seed(0)
    judge = new_discriminator(2, True, {"block_out_channels": [4, 8]})
    image = torch.randn(1, 1, 16, 16)
    assert not torch.equal(judge(image, torch.zeros_like(image)).logits, judge(image, torch.ones_like(image)).logits)
    assert new_discriminator(2, False, {"block_out_channels": [4, 8]})(image).logits.shape == (1, 1, 4, 4)
    with pytest.raises(ValueError, match=r"images of \(2, 16\) are too small to be judged: at least 4"):
        judge(torch.zeros(1, 1, 2, 16), torch.zeros(1, 1, 2, 16))


def test_a_judge_that_is_shown_detail_hears_noise_louder():
    torch.manual_seed(0)
    image, noise = torch.zeros(1, 1, 32, 32), 0.02 * torch.randn(1, 1, 32, 32, generator=seeded())
    moved = {}
    for gain in (0, 50):
        torch.manual_seed(0)
        judge = new_discriminator(2, False, {"block_out_channels": [4, 8], "detail_gain": gain})
        moved[gain] = (judge(image + noise).logits - judge(image).logits).std()
    assert moved[50] > 5 * moved[0]
    ramp = torch.arange(8.0).expand(1, 1, 5, 8)
    torch.testing.assert_close(detail(ramp)[..., 1:-1], torch.zeros(1, 1, 5, 6))
    torch.testing.assert_close(detail(noise)[0, 0, 5, 7], noise[0, 0, 5, 7] - noise[0, 0, 4:7, 6:9].mean())
    with pytest.raises(ValueError, match="detail_gain must be 0 or more, got -1"):
        PatchDiscriminator(dimensions=2, detail_gain=-1)


# The generator


def test_a_generator_begins_with_noise_of_a_tenth_of_the_window():
    torch.manual_seed(0)
    maker = new_generator(2, True, True, {"block_out_channels": (4, 8)})
    told = torch.randn(2, 3, 16, 16, generator=seeded())
    torch.testing.assert_close(painted(maker, told), 0.1 * told[:, 2:])
    torch.nn.init.constant_(maker.last.bias, 0.5)
    torch.testing.assert_close(painted(maker, told), (0.5 + 0.1 * np.exp(0.5) * told[:, 2:]).clamp(-1, 1))
    pattern = (torch.arange(16.0) % 2).expand(1, 2, 16, 16)
    torch.testing.assert_close(blurred(pattern)[..., 1:-1], torch.full((1, 2, 16, 14), 0.5))
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    wanted = ndimage.correlate(told[0, 0].numpy(), kernel, mode="nearest")
    np.testing.assert_allclose(blurred(told)[0, 0].numpy(), wanted, atol=1e-6)
    silent = new_generator(2, True, False, {"block_out_channels": (4, 8)})
    assert not painted(silent, told[:, :2]).any()


def test_an_image_that_is_given_back_is_given_no_noise():
    maker, judge = Noisy(), Plane(torch.zeros(1, 8, 8))
    options = dict(objective="paper", noise=True, pair_weight=0.0)
    costs = [GeneratorLoss(maker, judge, as_it_is, None, identity_weight=w, **options) for w in (0.0, 3.0)]
    torch.testing.assert_close(costs[0](batch(), seeded()), costs[1](batch(), seeded()))


# Objectives


class Plane(torch.nn.Module):
    """D(x) = w·x of every image."""

    def __init__(self, weights):
        super().__init__()
        self.weights = torch.nn.Parameter(weights)

    def forward(self, image, position=None):
        from cascade.gan.discriminator import PatchDiscriminatorOutput

        return PatchDiscriminatorOutput(logits=(image * self.weights).flatten(1).sum(1)[:, None, None, None])


class Same(torch.nn.Module):
    """G(m) = gain · m."""

    def __init__(self, gain=1.0):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(gain))

    def forward(self, given):
        from cascade.diffusion.pixel_shuffle_unet import PixelShuffleUNetOutput

        return PixelShuffleUNetOutput(sample=self.gain * given[:, :1])


class Noisy(torch.nn.Module):
    """G(m) = m + noise."""

    def forward(self, told):
        from cascade.diffusion.pixel_shuffle_unet import PixelShuffleUNetOutput

        return PixelShuffleUNetOutput(sample=told[:, :1] + told[:, -1:])


def batch(size=(8, 8), count=2, seed=0):
    rng = seeded(seed)
    names = ("image", "image_position", "annotation", "annotation_position")
    return {name: torch.rand(count, 1, *size, generator=rng) for name in names}


def as_it_is(given, generator):
    return given


def losses(objective, gain=0.5, **options):
    torch.manual_seed(0)
    judge, maker = Plane(0.1 * torch.randn(1, 8, 8)), Same(gain)
    given = dict(identity_weight=0.0, pair_weight=0.0) | options
    penalty = given.pop("gradient_penalty", 0.0)
    made = GeneratorLoss(maker, judge, as_it_is, None, objective=objective, noise=False, **given)
    told = DiscriminatorLoss(
        maker, judge, as_it_is, None, Watch(), objective=objective, noise=False, gradient_penalty=penalty
    )
    return made, told, judge, maker


def test_the_papers_objective_is_that_of_isola_et_al():
    made, told, judge, _ = losses("paper")
    given = batch()
    real, fake = judge(given["image"]).logits, judge(0.5 * given["annotation"]).logits
    ones = torch.ones_like(real)
    wanted = 0.5 * (F.binary_cross_entropy_with_logits(real, ones) + F.binary_cross_entropy_with_logits(fake, 0 * ones))
    torch.testing.assert_close(told(given, seeded()), wanted)
    torch.testing.assert_close(made(given, seeded()), F.binary_cross_entropy_with_logits(fake, ones))


def test_identity_and_pairs_are_mean_distances():
    given = batch()
    without = losses("paper")[0](given, seeded())
    identity = losses("paper", identity_weight=3.0)[0](given, seeded()) - without
    torch.testing.assert_close(identity, 3 * (0.5 * given["image"]).abs().mean())
    pairs = losses("paper", pair_weight=2.0)[0](given, seeded()) - without
    apart = 0.5 * given["annotation"] - given["image"]
    torch.testing.assert_close(pairs, 2 * apart.abs().mean())
    whole = losses("paper", pair_weight=2.0, pair_box_px=99)[0](given, seeded()) - without
    torch.testing.assert_close(whole, 2 * apart.mean((1, 2, 3)).abs().mean())


def test_noise_costs_a_pair_the_less_the_larger_the_boxes():
    given = batch(count=300)
    given["image"] = 0.5 * given["annotation"]  # what is made of it, exactly
    noisy = given | {"image": given["image"] + 0.1 * torch.randn(given["image"].shape, generator=seeded(3))}
    cost = {n: losses("paper", pair_weight=1.0, pair_box_px=n)[0](noisy, seeded()) for n in (1, 4)}
    free = losses("paper")[0](noisy, seeded())
    assert (cost[1] - free).item() == pytest.approx(0.1 * np.sqrt(2 / np.pi), rel=0.05)
    assert (cost[4] - free).item() == pytest.approx(0.1 * np.sqrt(2 / np.pi) / 4, rel=0.1)


def test_the_modern_objective_is_relativistic_with_both_penalties():
    """Of a plane ‖∇D‖² is ‖w‖², wherever it is looked at."""
    given = batch()
    made, told, judge, _ = losses("modern", gradient_penalty=4.0)
    real, fake = judge(given["image"]).logits, judge(0.5 * given["annotation"]).logits
    steep = judge.weights.square().sum()
    torch.testing.assert_close(told(given, seeded()), F.softplus(fake - real).mean() + 0.5 * 4.0 * 2 * steep)
    torch.testing.assert_close(made(given, seeded()), F.softplus(real - fake).mean())
    told(given, seeded()).backward()
    assert judge.weights.grad.abs().sum() > 0
    image = given["image"].clone().requires_grad_(True)
    torch.testing.assert_close(gradient_penalty(image, judge(image).logits), steep)
    assert relativistic(real, fake) < relativistic(fake, real) or real.mean() <= fake.mean()


def test_each_loss_moves_its_own_network():
    given, (made, told, judge, maker) = batch(), losses("modern", gradient_penalty=1.0)
    told(given, seeded()).backward()
    assert maker.gain.grad is None
    judge.weights.grad = None
    judge.requires_grad_(False)
    made(given, seeded()).backward()
    assert maker.gain.grad is not None
    assert judge.weights.grad is None


@pytest.mark.parametrize("objective", ["paper", "modern"])
def test_a_generator_learns_what_real_images_look_like(objective):
    """Real images are as bright as 0.8 of their annotation; G has one number to find, by what D says alone."""
    torch.manual_seed(0)
    maker, judge = Same(0.2), new_discriminator(2, False, {"block_out_channels": [8, 16]})
    noise, options = seeded(1), dict(objective=objective, noise=False)
    common = (maker, judge, as_it_is, None)
    made = GeneratorLoss(*common, **options, identity_weight=0.0, pair_weight=0.0)
    told = DiscriminatorLoss(*common, Watch(), **options, gradient_penalty=0.1)
    moved = {made: torch.optim.Adam(maker.parameters(), 0.02, (0.0, 0.9))}
    moved |= {told: torch.optim.Adam(judge.parameters(), 0.005, (0.0, 0.9))}
    gains = []
    for _ in range(120):
        shown = torch.rand(8, 1, 8, 8, generator=noise)
        other = torch.rand(8, 1, 8, 8, generator=noise)
        for loss, optimiser in moved.items():
            optimiser.zero_grad()
            loss({"image": 0.8 * other, "annotation": shown}, noise).backward()
            optimiser.step()
        gains.append(maker.gain.item())
    assert np.mean(gains[-40:]) == pytest.approx(0.8, abs=0.15)


def test_pairs_are_turned_alike():
    image = torch.rand(6, 1, 4, 16, 16, generator=seeded())
    names = ("image", "annotation", "image_position", "annotation_position")
    turned = ConditionedEncoder()({name: image + n for n, name in enumerate(names)}, seeded(1))
    assert not torch.equal(turned["image"], image)
    for n, name in enumerate(names):
        torch.testing.assert_close(turned[name] - n, turned["image"])


# Collapse


def test_a_healthy_game_is_not_named():
    watch = Watch()
    for n in range(150):
        image = torch.rand(2, 1, 8, 8, generator=seeded(n))
        watch.see(torch.randn(8, generator=seeded(n)), torch.randn(8, generator=seeded(n + 500)), image, 0.8 * image)
    assert watch.verdicts() == []
    assert watch.accuracy == pytest.approx(0.5, abs=0.1)
    assert watch.variance == pytest.approx(0.64, rel=0.01)


@pytest.mark.parametrize(("pairs", "real", "fake"), [(False, 5.0, -5.0), (True, 5.0, 4.0)])
def test_a_discriminator_that_always_wins_is_named(pairs, real, fake):
    watch, image = Watch(), torch.rand(2, 1, 8, 8, generator=seeded())
    for n in range(120):
        if n == 50:
            assert watch.verdicts() == []  # too early to say
        watch.see(torch.full((8,), real), torch.full((8,), fake), image, image, pairs=pairs)
    (said,) = watch.verdicts()
    assert "tells 100.0% of patches apart" in said
    assert "\n" not in said


def test_a_generator_that_makes_one_picture_is_named():
    torch.manual_seed(0)
    maker = new_generator(2, True, False, {"block_out_channels": (4, 8)})  # its last layer is nought: all flat
    judge = new_discriminator(2, True, {"block_out_channels": (4, 8)})
    watch = Watch()
    options = dict(objective="paper", noise=False, gradient_penalty=0.0)
    told = DiscriminatorLoss(maker, judge, ConditionedEncoder(), AdaptiveAugmentation(p=0.5), watch, **options)
    for n in range(100):
        told(batch(seed=n), seeded(n))
    assert any(line.startswith("collapse: samples vary 0.0% as much as real images") for line in watch.verdicts())


def test_a_sketch_depends_on_its_stream_alone():
    settings, window = SketchSettings(brightness=(200.0, 900.0)), Window(0.0, 1000.0)
    one, other, third = (condition_of(two_cells(), "sketch", settings, window, stream(n, "x")) for n in (0, 0, 1))
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, third)
