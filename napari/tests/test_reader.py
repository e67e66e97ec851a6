"""Data sets of every format as layers, against the samples that were written."""

from dataclasses import replace

import dask.array
import numpy as np
import pytest
from conftest import discs
from napari.layers import Layer

from cascade.annotation import Annotation, Sample
from cascade.export.save import save_samples
from cascade.shapes.ellipsoid import ellipsoid
from napari_cascade import reader
from napari_cascade.reader import get_reader, read

PLANE, STACK = (0.5, 0.25), (2.0, 0.5, 0.5)
FORMATS = ["ctc", "cellpose", "stardist", "nnunet", "ome-tiff", "ome-zarr", "coco", "huggingface"]


def sample(shape, spacing_um, index=0, images=True):
    image, labels = discs(shape, index)
    return Sample(image if images else None, Annotation.of_labels(labels, spacing_um), index, index)


def check(layers, samples, separate):
    for (data, options, kind), wanted in zip(layers, ("image", "labels"), strict=True):
        assert kind == wanted
        arrays = [getattr(one, kind) for one in samples]
        np.testing.assert_array_equal(data, np.stack(arrays) if separate else arrays[0])
        assert options["scale"] == [1.0] * separate + list(samples[0].spacing_um)
        assert options["units"] == ["pixel"] * separate + ["micrometer"] * len(samples[0].spacing_um)
        assert [row["seed"] for row in options["metadata"]["cascade"]] == [one.seed for one in samples]
        layer = Layer.create(data, options, kind)  # napari takes them
        np.testing.assert_array_equal(layer.scale, options["scale"])


@pytest.mark.parametrize("name", FORMATS)
def test_planes_of_every_format(name, tmp_path):
    samples = [sample((96, 160), PLANE, n) for n in range(2)]
    folder = save_samples(samples, tmp_path / "set", (name,))
    check(get_reader(str(folder))(str(folder)), samples, True)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "coco"])
def test_a_stack_of_every_format(name, tmp_path):
    samples = [sample((6, 96, 96), STACK)]
    check(read(str(save_samples(samples, tmp_path / "set", (name,)))), samples, False)


@pytest.mark.parametrize("shape", [(96, 96), (6, 96, 96)])
@pytest.mark.parametrize("name", [name for name in FORMATS if name != "coco"])
def test_channels_have_layers_of_their_own(name, shape, tmp_path):
    spacing = STACK if len(shape) == 3 else PLANE
    samples = [sample(shape, spacing, n) for n in range(2)]
    several = [replace(one, image=np.stack([one.image, 2 * one.image])) for one in samples]
    first, second, labels = read(str(save_samples(several, tmp_path / "set", (name,))))
    check([first, labels], samples, True)
    check([second, labels], [replace(one, image=2 * one.image) for one in samples], True)
    assert [first[1]["name"], second[1]["name"], labels[1]["name"]] == ["set channel 1", "set channel 2", "set labels"]
    assert first[1]["colormap"] != second[1]["colormap"]


def test_a_set_of_several_formats_and_one_without_images(tmp_path):
    samples = [sample((96, 96), PLANE)]
    check(read(str(save_samples(samples, tmp_path / "both", ("annotations", "coco", "stardist")))), samples, False)
    for name in ("annotations", "ctc"):
        bare = [sample((96, 96), PLANE, images=False)]
        ((data, options, kind),) = read(str(save_samples(bare, tmp_path / name, (name,))))
        np.testing.assert_array_equal(data, bare[0].labels)
        assert (kind, options["scale"]) == ("labels", list(PLANE))


def test_samples_of_different_shapes_have_layers_of_their_own(tmp_path):
    samples = [sample((96, 160), PLANE), sample((96, 96), (1.0, 1.0), 1)]
    layers = read(str(save_samples(samples, tmp_path / "set")))
    assert [options["name"] for _, options, _ in layers] == ["set 0", "set 0 labels", "set 1", "set 1 labels"]
    check(layers[:2], samples[:1], False)
    check(layers[2:], samples[1:], False)


def test_large_sets_are_read_when_they_are_looked_at(tmp_path, monkeypatch):
    samples = [sample((96, 96), PLANE, n) for n in range(3)]
    folder = save_samples(samples, tmp_path / "set")
    monkeypatch.setattr(reader, "_EAGER_BYTES", 1000)
    layers = read(str(folder))
    assert all(isinstance(data, dask.array.Array) for data, _, _ in layers)
    check(layers, samples, True)


@pytest.mark.parametrize("name", FORMATS)
def test_large_sets_of_different_shapes_have_layers_of_their_own(name, tmp_path, monkeypatch):
    samples = [sample((96, 160), PLANE), sample((96, 96), PLANE, 1), sample((96, 160), PLANE, 2)]
    folder = save_samples(samples, tmp_path / "set", (name,))
    monkeypatch.setattr(reader, "_EAGER_BYTES", 1000)
    layers = read(str(folder))
    assert all(isinstance(data, dask.array.Array) for data, _, _ in layers)
    for number, one in enumerate(samples):
        check(layers[2 * number : 2 * number + 2], [one], False)


@pytest.mark.parametrize("count", [1, 2])
def test_surfaces_lie_where_the_cells_do(count, tmp_path):
    z, y, x = np.indices((12, 48, 48))
    centre, radii = np.array([12.0, 10.0, 14.0]), (6.0, 4.0, 5.0)
    points = np.stack([z, y, x], -1) * STACK
    inside = (((points - centre) / radii) ** 2).sum(-1) <= 1
    (record,) = Annotation.of_labels(inside.astype(np.uint16), STACK).cells
    cell = replace(record, origin_um=tuple(centre), solid=ellipsoid(np.array(radii)))
    annotation = Annotation(inside.astype(np.uint16), STACK, (cell,))
    samples = [Sample(inside.astype(np.uint16) * 100, annotation, n, n) for n in range(count)]
    *pair, (data, options, kind) = read(str(save_samples(samples, tmp_path / "set", meshes=True)))
    check(pair, samples, count > 1)
    assert kind == "surface"
    vertices, faces, values = data
    assert set(values) == {1.0}
    assert faces.max() == len(vertices) - 1
    last = vertices[vertices[:, 0] == count - 1][:, 1:] if count > 1 else vertices
    np.testing.assert_allclose((last.max(0) + last.min(0)) / 2, centre, atol=0.2)
    np.testing.assert_allclose((last.max(0) - last.min(0)) / 2, radii, rtol=0.05)
    corners = vertices[faces[faces[:, 0] < len(vertices) // count]][..., -3:]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    outwards = (normals * (corners.mean(1) - centre)).sum(-1)
    assert np.sign(outwards).min() == np.sign(outwards).max()  # all turn the same way
    Layer.create(data, options, kind)


def test_what_is_no_data_set_is_left_to_others(tmp_path):
    (tmp_path / "x.tif").touch()
    assert get_reader(str(tmp_path)) is None
    assert get_reader(str(tmp_path / "x.tif")) is None
    assert get_reader([str(tmp_path), str(tmp_path)]) is None
    with pytest.raises(ValueError, match="is no data set of Cascade"):
        read(str(tmp_path))
    folder = save_samples([sample((96, 96), PLANE), sample((96, 96), PLANE, 1)], tmp_path / "fitted" / "synthetic")
    assert get_reader([str(folder.parent)]) is read  # the folder of a fit
    assert get_reader(str(folder / "provenance.jsonl")) is read
    (folder / "01_GT" / "SEG" / "man_seg001.tif").unlink()
    with pytest.raises(ValueError, match=r"1 images, but provenance.jsonl names 2"):
        read(str(folder))
