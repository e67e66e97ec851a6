"""Layers as arrays, without a window."""

import numpy as np
import pytest
from conftest import discs
from napari.layers import Image, Labels

from napari_cascade.layers import annotated, is_separate, layer_data


def test_a_plane_with_its_scale(plane):
    image, labels = plane
    given = annotated(Image(image, scale=(0.5, 0.25)), Labels(labels.astype(int)))
    assert given.spacing_um == (0.5, 0.25)
    np.testing.assert_array_equal(given.images, [image])
    np.testing.assert_array_equal(given.labels, [labels])
    assert annotated(Image(image), Labels(labels), spacing_um=(0.3, 0.3)).spacing_um == (0.3, 0.3)
    nanometres = Image(image, scale=(500, 250), units=("nm", "nm"))
    assert annotated(nanometres, Labels(labels)).spacing_um == pytest.approx((0.5, 0.25))


def test_a_stack_and_a_series_of_planes():
    image, labels = discs((5, 160, 160))
    stack = annotated(Image(image, scale=(2, 0.5, 0.5)), Labels(labels))
    assert [one.shape for one in stack.images] == [(5, 160, 160)]
    assert stack.spacing_um == (2, 0.5, 0.5)
    planes = annotated(Image(image, scale=(1, 0.5, 0.5)), Labels(labels), separate=True)
    assert [one.shape for one in planes.images] == [(160, 160)] * 5
    assert planes.spacing_um == (0.5, 0.5)


def test_the_finest_level_is_taken(plane):
    image, labels = plane
    pyramid = Image([image, image[::2, ::2]], multiscale=True, scale=(0.5, 0.5))
    np.testing.assert_array_equal(annotated(pyramid, Labels(labels)).images[0], image)


def test_what_cannot_be_learned_from_is_said_in_one_line(plane):
    image, labels = plane
    good, cells = Image(image, name="nuclei"), Labels(labels, name="cells")
    stack = np.stack([image] * 4)
    for pair, message in (
        ((None, None), "choose an Image and a Labels layer: open or make one first"),
        ((good, None), "choose a Labels layer"),
        ((Image(np.zeros((8, 8, 3), np.uint8), rgb=True, name="photo"), cells), "photo is in colour"),
        ((Image(stack[None], name="movie"), cells), r"movie has 4 axes \(1, 4, 160, 160\)"),
        ((good, Labels(labels[1:], name="cut")), r"cut has shape \(159, 160\), nuclei \(160, 160\)"),
        ((good, Labels(np.stack([labels] * 4), name="deep")), r"deep has shape \(4, 160, 160\)"),
        ((good, Labels(np.zeros_like(labels), name="blank")), "blank is empty: outline some cells"),
        ((good, Labels(-labels.astype(int), name="odd")), "odd has numbers below 0"),
        ((Image(stack, name="deep"), Labels(np.stack([labels] * 4))), "deep has no voxel size"),
        (
            (Image(stack, name="movie", units=("s", "um", "um")), Labels(np.stack([labels] * 4))),
            "movie has an axis in second, which is no length",
        ),
    ):
        with pytest.raises(ValueError, match=message) as said:
            annotated(*pair)
        assert "\n" not in str(said.value)
    with pytest.raises(ValueError, match=r"voxel size 1 2 3: nuclei needs 2 lengths"):
        annotated(good, cells, spacing_um=(1.0, 2.0, 3.0))


def test_there_and_back():
    image, labels = discs((3, 160, 160))
    (data, options, kind), (cells, more, label_kind) = layer_data("x", image, labels, (0.5, 0.5))
    assert (kind, label_kind) == ("image", "labels")
    first, second = Image(data, **options), Labels(cells, **more)
    assert is_separate(first)
    assert is_separate(second)
    assert not is_separate(Image(image))
    given = annotated(first, second, separate=True)
    assert given.spacing_um == (0.5, 0.5)
    np.testing.assert_array_equal(given.labels, labels)
