"""OME-Zarr as input: folders that zarr writes by the specifications 0.4 and 0.5, and this package's own."""

import json
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from conftest import ball_stack, field_of_view

from cascade.annotation import Annotation, Sample
from cascade.commands.cli import main
from cascade.data.frames import find_frames
from cascade.data.images import find_images, read_scenes
from cascade.data.label_sets import bare_labels, find_labels
from cascade.data.patches import PatchDataset
from cascade.data.prepare import prepare
from cascade.data.settings import PrepareSettings, ValidateSettings
from cascade.data.spacing import spacing_of
from cascade.data.validate import validate
from cascade.evaluation.sources import Source
from cascade.export import ome_zarr
from cascade.export.save import save_samples
from cascade.ngff import holds_image, labels_in, read_zarr
from cascade.reading import DataError, read_channels, read_image, read_labels

VERSIONS = ("0.4", "0.5")
KINDS = {"t": "time", "c": "channel"}
UM = {"z": 2.0, "y": 1.0, "x": 1.0}


def multiscale(axes, version, unit="micrometer", factor=1.0):
    """Metadata of two levels, by the specification."""
    told = [{"name": a, "type": KINDS.get(a, "space")} | ({"unit": unit} if a in UM and unit else {}) for a in axes]
    levels = []
    for level in range(2):
        scale = [UM.get(a, 1.0) * factor * (2**level if a in "yx" else 1) for a in axes]
        steps = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": [0.5] * len(axes)}]
        levels.append({"path": f"level{level}", "coordinateTransformations": steps})
    return {"axes": told, "datasets": levels} | ({"version": "0.4"} if version == "0.4" else {})


def put(group, version, values, axes, more=None, **options):
    """An image, or labels, into a group, as other tools write them."""
    for level in range(2):
        step = tuple(slice(None, None, 2**level if a in "yx" else 1) for a in axes)
        part = values[step]
        group.create_array(
            f"level{level}", shape=part.shape, dtype=part.dtype, chunks=tuple(min(n, 32) for n in part.shape)
        )
        group[f"level{level}"][...] = part
    record = {"multiscales": [multiscale(axes, version, **options)]} | (more or {})
    group.attrs.update(record if version == "0.4" else {"ome": {"version": "0.5"} | record})


def write_foreign(path, version, image, labels=None, axes="yx", label_axes=None, channels=(), **options):
    root = zarr.create_group(str(path), zarr_format=2 if version == "0.4" else 3)
    omero = {"omero": {"channels": [{"label": name} for name in channels]}} if channels else {}
    put(root, version, image, axes, omero, **options)
    if labels is not None:
        inner = root.create_group("labels")
        listed = {"labels": ["cells by hand"]}
        inner.attrs.update(listed if version == "0.4" else {"ome": {"version": "0.5"} | listed})
        put(inner.create_group("cells by hand"), version, labels, label_axes or axes, {"image-label": {}}, **options)
    return path


@pytest.fixture(scope="module")
def planes():
    rng = np.random.default_rng(0)
    return [field_of_view(rng) for _ in range(3)]


@pytest.fixture(params=VERSIONS)
def foreign(request, planes, tmp_path):
    """Planes of two channels and one time, labelled inside."""
    for n, (image, labels) in enumerate(planes):
        both = np.stack([image // 2, image])[None, :, None]
        write_foreign(
            tmp_path / "set" / f"x{n}.ome.zarr", request.param, both.astype(">u2"), labels[None, None], "tczyx", "tzyx",
            channels=("membrane", "DNA"),
        )  # fmt: skip
    return tmp_path / "set"


def test_a_foreign_set_is_read(foreign, planes):
    (frame, *rest), bare = find_frames(foreign, channel="dna")
    assert (len(rest), bare, frame.name) == (2, 0, "x0.ome")
    assert frame.image().dtype == np.uint16
    assert (frame.image() == planes[0][0]).all()
    assert (frame.labels() == planes[0][1]).all()
    assert (read_image(frame.image_path, "1") == planes[0][0] // 2).all()
    assert spacing_of(foreign, [frame], 2) == ((1.0, 1.0), "TIFF metadata")
    assert read_channels(frame.image_path, 2).shape == (2, 160, 160)
    with pytest.raises(DataError, match=r"2 channels .*\(membrane, DNA\); choose the one that shows the cells"):
        read_image(frame.image_path)


@pytest.mark.parametrize("foreign", ["0.4"], indirect=True)
def test_a_foreign_set_is_used_by_every_command(foreign, planes, tmp_path, capsys):
    assert main(["validate", str(foreign), "--channel", "DNA"]) == 0
    assert "3 frames" in capsys.readouterr().out
    crops = prepare(PrepareSettings(foreign, output_dir=tmp_path / "crops", crop_size=32, channel="DNA"))
    assert len(list(crops.glob("data/*.parquet"))) == 1
    (first, *_) = Source(foreign, channel="DNA").load()
    assert (first.image == planes[0][0]).all()
    assert (first.labels == planes[0][1]).all()
    (group,) = find_images(foreign)
    paths, images = read_scenes(foreign, channel="DNA")
    assert paths == group
    assert (images[0][0] == planes[0][0]).all()
    assert [str(one.path) for one in find_labels(foreign, channel="DNA")] == [
        str(p / "labels/cells by hand") for p in group
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_stacks_have_the_size_of_their_finest_level(version, tmp_path):
    image, labels = ball_stack(np.random.default_rng(0))
    path = write_foreign(tmp_path / "x.zarr", version, image, labels, "zyx", unit="nanometer", factor=1000.0)
    (frame,), _ = find_frames(path)  # the image itself, no folder of images
    assert (frame.image() == image).all()
    assert (frame.labels() == labels).all()
    assert spacing_of(path, [frame], 3)[0] == pytest.approx((2.0, 1.0, 1.0))
    assert validate(ValidateSettings(path)).errors == []
    assert find_images(path) == [[path]]


def test_without_a_unit_no_size_is_known(tmp_path, planes):
    path = write_foreign(tmp_path / "x.zarr", "0.5", *planes[0], unit=None)
    (frame,), _ = find_frames(path)
    assert spacing_of(path, [frame], 2) == ((1.0, 1.0), "assumed")


@pytest.mark.parametrize("ndim", [2, 3])
def test_our_own_export_is_read_back(ndim, tmp_path, planes):
    image, labels = planes[0] if ndim == 2 else ball_stack(np.random.default_rng(0))
    spacing = (2.0, 0.5, 0.5)[-ndim:]
    save_samples([Sample(image, Annotation.of_labels(labels, spacing), 0, 0)], tmp_path / "set", ("ome-zarr",))
    assert bare_labels(tmp_path / "set") == []
    (frame,), _ = find_frames(tmp_path / "set")
    assert (frame.image() == image).all()
    assert (frame.labels() == labels).all()
    assert spacing_of(tmp_path / "set", [frame], ndim)[0] == spacing
    assert validate(ValidateSettings(tmp_path / "set")).errors == []


def test_labels_without_image_are_still_labels(tmp_path, planes):
    labels = planes[0][1]
    ome_zarr.write(Sample(None, Annotation.of_labels(labels, (0.5, 0.5)), 0, 0), 0, tmp_path)
    (one,) = bare_labels(tmp_path)
    assert not holds_image(one.path)
    annotation, origin = one.annotation()
    assert (annotation.labels == labels).all()
    assert (annotation.spacing_um, origin) == ((0.5, 0.5), "annotation")
    assert [found.path for found in bare_labels(one.path)] == [one.path]


def test_masks_may_lie_beside_or_in_a_folder_of_their_own(tmp_path, planes):
    image, labels = planes[0]
    write_foreign(tmp_path / "a" / "x.ome.zarr", "0.4", image)
    tifffile.imwrite(tmp_path / "a" / "x_masks.tif", labels)
    write_foreign(tmp_path / "b" / "images" / "x.ome.zarr", "0.4", image)
    write_foreign(tmp_path / "b" / "masks" / "x.ome.zarr", "0.4", labels)
    write_foreign(tmp_path / "c" / "images" / "x.ome.zarr", "0.4", image, labels)
    for name in "abc":
        (frame,), _ = find_frames(tmp_path / name)
        assert (frame.image() == image).all()
        assert (frame.labels() == labels).all()


@pytest.mark.parametrize("foreign", ["0.5"], indirect=True)
def test_networks_are_trained_on_it(foreign):
    patches = PatchDataset(foreign, (32, 48), channel="DNA")
    assert patches[[0, 7]]["image"].shape == (2, 1, 32, 48)
    assert PatchDataset(foreign, (32, 48), channels=2)[[0]]["image"].shape == (1, 2, 32, 48)


def test_what_is_no_such_image_is_named(tmp_path, planes):
    image, labels = planes[0]
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(DataError, match=r"empty.zarr: cannot be read"):
        read_image(tmp_path / "empty.zarr")
    plate = zarr.create_group(str(tmp_path / "plate.zarr"))
    plate.attrs["ome"] = {"plate": {}}
    with pytest.raises(DataError, match="a plate of wells"):
        read_image(tmp_path / "plate.zarr")
    write_foreign(tmp_path / "odd.zarr", "0.5", image[None], axes="wyx")
    with pytest.raises(DataError, match="axes w y x of 3: an image has some of t c z y x"):
        read_image(tmp_path / "odd.zarr")
    path = write_foreign(tmp_path / "set" / "two.zarr", "0.5", image, labels)
    zarr.open_group(str(path / "labels"), mode="a").attrs["ome"] = {"labels": ["cells by hand", "others"]}
    with pytest.raises(DataError, match=r"two.zarr: holds several labels, cells by hand, others"):
        find_frames(tmp_path / "set")
    write_foreign(tmp_path / "film.zarr", "0.4", np.stack([image, image]), axes="tyx")
    with pytest.raises(DataError, match="a time series of 2 frames"):
        read_image(tmp_path / "film.zarr")
    assert (read_labels(labels_in(path)[0]) == labels).all()


@pytest.mark.parametrize("coded", [{"compressor": {"id": "pickle"}}, {"filters": [{"id": "pickle"}]}])
def test_pickles_are_never_opened(coded, tmp_path, planes):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "opened",)

    path = write_foreign(tmp_path / "x.zarr", "0.4", planes[0][0])
    record = json.loads((path / "level0" / ".zarray").read_text())
    chunks = [one for one in (path / "level0").rglob("*") if one.is_file() and not one.name.startswith(".")]
    assert chunks
    for chunk in chunks:
        chunk.write_bytes(pickle.dumps(Trap()))
    (path / "level0" / ".zarray").write_text(json.dumps(record | {"filters": None, "compressor": None} | coded))
    with pytest.raises(DataError, match=r"x.zarr: cannot be read \(.*pickle"):  # which zarr refuses
        read_image(path)
    assert not (tmp_path / "opened").exists()


def test_a_series_inside_is_found(tmp_path, planes):
    root = zarr.create_group(str(tmp_path / "x.zarr"), zarr_format=2)
    root.attrs["bioformats2raw.layout"] = 3
    put(root.create_group("0"), "0.4", planes[0][0], "yx")
    assert (read_image(tmp_path / "x.zarr") == planes[0][0]).all()
    assert read_zarr(tmp_path / "x.zarr", pixels=False).spacing_um == (0.0, 1.0, 1.0)
    put(root.create_group("1"), "0.4", planes[0][0], "yx")
    with pytest.raises(DataError, match="2 images in one folder"):
        read_image(tmp_path / "x.zarr")


@pytest.mark.parametrize("foreign", ["0.5"], indirect=True)
def test_thinning_says_what_it_cannot_copy(foreign, tmp_path, capsys, caplog):
    caplog.set_level(logging.INFO)
    assert main(["thin", str(foreign), "--frames", "1", "--channel", "DNA", "--output_dir", str(tmp_path / "t")]) == 1
    assert "is a folder, and files are copied" in capsys.readouterr().err


def test_signed_labels_and_labels_that_are_an_image_are_annotations(tmp_path, planes, capsys):
    image, labels = planes[0]
    write_foreign(tmp_path / "a" / "x.ome.zarr", "0.5", image, labels.astype(np.int32))
    write_foreign(tmp_path / "b" / "images" / "x.ome.zarr", "0.5", image)
    write_foreign(tmp_path / "b" / "masks" / "x.ome.zarr", "0.5", labels.astype(np.int64))
    for name in "ab":
        (file,) = find_labels(tmp_path / name)
        annotation, _ = file.annotation()
        assert annotation.labels.dtype == np.uint16
        assert (annotation.labels == labels).all()
    write_foreign(tmp_path / "c" / "x.ome.zarr", "0.5", image, labels.astype(np.int32) - 1)
    with pytest.raises(DataError, match=r"x\.ome\.zarr.*: ids down to -1"):
        find_labels(tmp_path / "c")[0].annotation()
    words = ["sketch", str(tmp_path / "a"), "--output_dir", str(tmp_path / "sketches")]
    assert main(words) == 0
