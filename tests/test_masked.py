"""Cellpose's training with a loss that passes over what nobody annotated."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from made_up import labelled_images

from cascade.evaluation.masked import _rate, known_pixels, masked_loss, train_masked, windows_around
from cascade.evaluation.segmenters import CellposeSettings, cellpose3


def test_where_all_is_known_the_loss_is_cellposes_own():
    train = pytest.importorskip("cellpose.train")
    rng = torch.Generator().manual_seed(0)
    made = torch.randn((2, 3, 9, 7), generator=rng)
    target = torch.randn((2, 3, 9, 7), generator=rng)
    target[:, 0] = (target[:, 0] > 0).float()
    theirs = train._loss_fn_seg(target.numpy(), made, torch.device("cpu"))
    assert masked_loss(made, target, torch.ones(2, 9, 7)).item() == pytest.approx(theirs.item(), rel=1e-5)


def test_what_is_not_known_does_not_count():
    made, target, weight = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4), torch.ones(1, 4, 4)
    weight[0, :, 2:] = 0
    before = masked_loss(made, target, weight)
    target[0, :, :, 2:] = 1  # an unannotated cell
    assert masked_loss(made, target, weight) == before
    target[0, 0, 0, 0] = 1
    assert masked_loss(made, target, weight) == before  # a logit of 0 is as wrong either way
    made[0, 2, 0, 0] = -5
    assert masked_loss(made, target, weight) > before


def test_cells_their_rings_and_the_dark_are_known():
    image, labels = np.zeros((60, 60)), np.zeros((60, 60), int)
    image[10:30, 10:30] = image[40:50, 40:50] = 1
    labels[10:30, 10:30] = 1
    known = known_pixels(image, labels)
    assert known[10:30, 10:30].all()
    assert not known[41:49, 41:49].any()  # bright, and nobody said what it is
    bright = np.ones((60, 60))
    ring = known_pixels(bright, labels) & (labels == 0)
    assert ring[8:10, 15:25].all()  # a fifth of 22.6 pixels
    assert not ring[:5].any()


@pytest.mark.parametrize("place", [(0, 0), (88, 112), (40, 60), (0, 70)])
def test_a_window_holds_its_cell_and_lies_in_the_image(place):
    labels = np.zeros((100, 120), int)
    labels[place[0] : place[0] + 12, place[1] : place[1] + 8] = 5
    (window,) = windows_around(labels, 30)
    assert labels[window].shape == (30, 30)
    assert np.count_nonzero(labels[window]) == 96
    (everything,) = windows_around(labels, 300)
    assert labels[everything].shape == labels.shape


def test_labels_of_a_tall_image_are_left_as_they_are(monkeypatch):
    """Cellpose counts cells anew in place, and windows as wide as the image are parts of it."""
    dynamics = pytest.importorskip("cellpose.dynamics")
    labels = np.zeros((200, 40), np.int32)
    for n in range(8):
        labels[24 * n + 4 : 24 * n + 16, 14:26] = 10 * n + 3
    image, seen = np.where(labels > 0, 9.0, 0.0) + np.random.default_rng(0).normal(size=labels.shape), []
    flows = dynamics.labels_to_flows
    monkeypatch.setattr(
        dynamics, "labels_to_flows", lambda several, **how: seen.append(several) or flows(several, **how)
    )
    before = labels.copy()
    settings = CellposeSettings(width=(8, 8, 8, 256), steps=5, batch_size=1, crop=32, masked=True)
    net = SimpleNamespace(device=torch.device("cpu"), diam_mean=torch.tensor(30.0), diam_labels=torch.nn.Parameter())
    with pytest.raises(AttributeError):  # of the network, which is none
        train_masked(net, [image.astype(np.float32)], [labels], settings)
    np.testing.assert_array_equal(labels, before)
    assert not any(np.shares_memory(window, labels) for window in seen[0])


def test_rates_are_cellposes():
    """Those that `train_seg` makes in line, for 120 and for 400 epochs."""
    for epochs, last, step in ((120, 50, 5), (400, 100, 10)):
        theirs = np.append(np.linspace(0, 1, 10), np.ones(epochs - 10))[:-last]
        for _ in range(10):
            theirs = np.append(theirs, theirs[-1] / 2 * np.ones(step))
        assert [_rate(epoch, epochs) for epoch in range(epochs)] == pytest.approx(theirs.tolist())


def test_a_masked_training_depends_on_its_seed_alone():
    pytest.importorskip("cellpose")
    settings = CellposeSettings(width=(4, 8, 8, 256), steps=10, crop=32, batch_size=2, masked=True)
    train = labelled_images(0, 2)
    weights = [
        cellpose3(train, how, seed)[1].net.state_dict()["output.2.weight"]
        for how, seed in ((settings, 0), (settings, 0), (settings, 1), (replace(settings, masked=False), 0))
    ]
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])
    assert not np.array_equal(weights[0], weights[3])
