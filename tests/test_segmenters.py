from dataclasses import replace
from importlib import metadata

import numpy as np
import pytest
import torch
from conftest import ball_stack
from made_up import labelled_images

from cascade.commands.cli import main
from cascade.evaluation.labelled import LabelledImage, drawn_planes, is_shallow, plane_count, training_planes
from cascade.evaluation.segmenters import (
    NARROW,
    Cellpose4Settings,
    CellposeSettings,
    _in_bfloat16,
    cellpose3,
    cellpose4,
    segment,
    segmenting,
)
from cascade.evaluation.thresholds import best_threshold


def test_a_cellpose_that_is_missing_or_another_is_named_with_its_extra(monkeypatch, tmp_path, capsys):
    version = metadata.version

    def missing(name):
        if name == "cellpose":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(ImportError, match=r"not installed: pip install 'cascade-microscopy\[cellpose\]'"):
        cellpose3([], CellposeSettings(), 0)
    sets = [f"--{name}={tmp_path / 'not read'}" for name in ("real_train", "real_test", "synthetic")]
    for protocol, extra in (("narrow", "cellpose"), ("cellpose4", "cellpose4")):
        assert main(["evaluate", *sets, "--output_dir", str(tmp_path / "out"), "--protocol", protocol]) == 1
        assert f"not installed: pip install 'cascade-microscopy[{extra}]'" in capsys.readouterr().err
    monkeypatch.setattr(metadata, "version", lambda name: "3.1.1")
    with pytest.raises(ImportError, match=r"Cellpose 4 is needed: pip install 'cascade-microscopy\[cellpose4\]'"):
        cellpose4([], Cellpose4Settings(), 0)


def test_stacks_give_planes_of_equal_spacing():
    labels = np.zeros((10, 40, 48), np.int32)
    labels[3:7, 10:20, 10:20] = 1
    planes = training_planes(LabelledImage(labels * 100.0, labels, (2.0, 0.5, 0.5)))
    assert [p.shape for p, _ in planes[:10]] == [(40, 48)] * 10
    assert {p.shape for p, _ in planes[10:]} == {(40, 48), (40, 40)}  # 10 slices of 2 µm are 40 pixels of 0.5 µm
    assert all(set(np.unique(label)) <= {0, 1} for _, label in planes)


def test_cells_of_a_shallow_stack_are_found_slice_by_slice(monkeypatch):
    labels = np.zeros((5, 60, 60), np.int32)
    labels[:, 5:25, 5:25], labels[2:, 30:50, 30:50] = 1, 2
    shallow = LabelledImage(labels * 100.0, labels, (1.0, 0.3, 0.3))  # 5 µm high, cells 6.8 µm wide
    high = LabelledImage(labels * 100.0, labels, (2.0, 0.3, 0.3))
    assert [is_shallow(one) for one in (shallow, high)] == [True, False]
    assert [is_shallow(shallow, diameter) for diameter in (16.0, 17.0)] == [False, True]
    assert not is_shallow(LabelledImage(labels[0] * 1.0, labels[0], (0.3, 0.3)), 100.0)
    assert len(training_planes(shallow)) == plane_count(shallow) == 5
    assert len(training_planes(high)) == 5 + 2 * 15
    asked = []

    class Model:
        def eval(self, image, **options):
            asked.append(options)
            return [image > 0]

    monkeypatch.setattr(metadata, "version", lambda name: "3.1.1")
    for one in (shallow, high):
        segment(Model(), one, 22.0)
    assert asked[0]["stitch_threshold"] > 0
    assert "do_3D" not in asked[0]
    assert asked[1]["do_3D"]
    assert "stitch_threshold" not in asked[1]


def test_planes_are_as_bright_as_cellpose_sees_their_stack():
    """Its own normalisation, of the stack as its 3D mode does, and of a plane as it does for planes."""
    normalize_img = pytest.importorskip("cellpose.transforms").normalize_img
    image, labels = ball_stack(np.random.default_rng(1))
    planes = training_planes(LabelledImage(image, labels, (2.0, 1.0, 1.0)))
    stack = normalize_img(image[..., None].astype(np.float32), norm3D=True)[..., 0]
    np.testing.assert_allclose(np.stack([p for p, _ in planes[: len(image)]]), stack, atol=1e-4)
    ((plane, _),) = training_planes(LabelledImage(image[12], labels[12], (1.0, 1.0)))
    np.testing.assert_allclose(plane, normalize_img(image[12][..., None].astype(np.float32))[..., 0], atol=1e-4)


def test_a_plane_of_one_labelled_pixel_is_no_training_plane():
    """Cellpose 3 fails on it on a GPU; the ends of generated solids give some."""
    empty, pixel, pair = (np.zeros((16, 16), np.int32) for _ in range(3))
    pixel[4, 4] = pair[4, 4] = pair[4, 5] = 1
    noise = np.random.default_rng(0).normal(size=(16, 16))
    data = [LabelledImage(labels + noise, labels, (1.0, 1.0)) for labels in (empty, pixel, pair)]
    _, labels = drawn_planes(data, 10, seed=0)
    assert [label.sum() for label in labels] == [2]
    with pytest.raises(ValueError, match="no training image shows a cell"):
        drawn_planes(data[:2], 10, seed=0)


def test_an_image_in_which_cellpose_sees_nothing_is_not_trained_on():
    """Cells of less than a hundredth of an image on a ground without noise: its percentiles are the same."""
    transforms = pytest.importorskip("cellpose.transforms")
    labels = np.zeros((64, 64), np.int32)
    labels[20:25, 20:25] = 1
    flat, noise = 200.0 * (labels > 0), np.random.default_rng(0).normal(10, 1, (64, 64))
    for image in (flat, flat + noise):
        ((seen, _),) = training_planes(LabelledImage(image, labels, (1.0, 1.0)))
        np.testing.assert_allclose(seen, transforms.normalize99(image), atol=1e-4)
    images, _ = drawn_planes([LabelledImage(one, labels, (1.0, 1.0)) for one in (flat, flat + noise)], 10, seed=0)
    assert len(images) == 1


def test_the_same_planes_are_drawn_of_images_that_are_given_twice():
    rng = np.random.default_rng(0)
    data = [LabelledImage(rng.normal(size=(5, 16, 16)), rng.integers(0, 3, (5, 16, 16)), (1.0,) * 3) for _ in range(3)]
    every = [plane for one in 2 * data for plane in training_planes(one)]
    images, labels = drawn_planes(2 * data, 12, seed=4)
    order = np.random.default_rng(4).permutation(len(every))[:12]
    for image, label, n in zip(images, labels, order, strict=True):
        np.testing.assert_array_equal(image, every[n][0])
        np.testing.assert_array_equal(label, every[n][1])


def test_later_settings_do_not_rename_trainings_of_before():
    """What a training is of is told by the settings' text: finished ones are then not trained again."""
    usual = (
        "CellposeSettings(width=(16, 32, 64, 256), steps=600, batch_size=8, crop=128, learning_rate=0.005, "
        "diameter_px=30.0, bfloat16=True, planes=400, cellprob_threshold=0.0, masked=False)"
    )
    assert repr(NARROW) == usual
    assert repr(replace(NARROW, optimizer="sgd")) == usual.replace("False)", "False, optimizer='sgd')")


def test_the_best_threshold_is_found_between_those_tried_first():
    held_out = labelled_images(0, 30)
    asked = []

    def segment(one, cellprob_threshold):  # the lower the threshold, the more cells, until they are none
        asked.append(cellprob_threshold)
        return one.labels * (one.labels <= -cellprob_threshold) * (cellprob_threshold >= -5)

    assert best_threshold(segment, held_out) == -5
    assert len(asked) == 12 * 8  # not all thirty images
    assert best_threshold(lambda one, cellprob_threshold: one.labels, held_out) == 0


def test_cells_end_where_the_threshold_says():
    pytest.importorskip("cellpose")

    class Network:
        def eval(self, image, cellprob_threshold, **options):
            return (image > cellprob_threshold).astype(int), None

    one = LabelledImage(np.arange(-3.0, 4).reshape(1, 7), np.zeros((1, 7), int), (1.0, 1.0))
    assert segment(Network(), one, 30.0).sum() == 3
    assert segmenting(Network(), 30.0, 1.0)(one).sum() == 2
    assert segmenting(Network(), 30.0, 1.0)(one, cellprob_threshold=-2.0).sum() == 5
    assert segment(Network(), one, 30.0, cellprob_threshold=-2.0).sum() == 5


def test_mixed_precision_changes_little():
    pytest.importorskip("cellpose")
    from cellpose.resnet_torch import CPnet

    torch.manual_seed(0)
    net, data = CPnet([2, 4, 8, 8, 256], 3, sz=3, max_pool=True).eval(), torch.randn(1, 2, 32, 32)
    with torch.no_grad():
        exact = net(data)[0]
        _in_bfloat16(net)
        mixed = net(data)[0]
    assert mixed.dtype == torch.float32
    assert 0 < (mixed - exact).norm() < 0.05 * exact.norm()


def test_cellpose_is_trained_by_seed():
    pytest.importorskip("cellpose")
    settings = CellposeSettings(width=(4, 8, 8, 256), steps=5, crop=32, batch_size=2, bfloat16=True)
    train, (test,) = labelled_images(0, 2), labelled_images(5, 1)
    trained, model = cellpose3(train, settings, seed=0)
    assert trained(test).shape == test.labels.shape
    stack = LabelledImage(*ball_stack(np.random.default_rng(0), (20, 24, 24), 1), (2.0, 1.0, 1.0))
    assert trained(stack).shape == stack.labels.shape  # in Cellpose's 3D mode
    weights = [cellpose3(train, settings, seed)[1].net.state_dict()["output.2.weight"] for seed in (0, 1)]
    assert np.array_equal(weights[0], model.net.state_dict()["output.2.weight"])
    assert not np.array_equal(*weights)
    with pytest.raises(ValueError, match="no training image shows a cell"):
        cellpose3([LabelledImage(test.image, test.labels * 0, (1, 1))], settings, 0)
