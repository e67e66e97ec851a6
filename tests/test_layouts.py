"""What people have: folders of images and masks, outlines of QuPath and ImageJ, Cellpose's own file, channels."""

import json
import zipfile

import numpy as np
import pytest
import tifffile
from conftest import ball_stack, ellipse, field_of_view
from skimage import io, measure

from cascade.annotation import Annotation, Sample
from cascade.commands.cli import main
from cascade.data.frames import find_frames
from cascade.data.images import find_images, read_scenes
from cascade.data.outlines import read_outlines
from cascade.data.settings import ThinSettings
from cascade.data.spacing import spacing_of
from cascade.data.thin import thin
from cascade.export.save import save_samples
from cascade.reading import DataError, read_image

SQUARE = [[10, 20], [30, 20], [30, 40], [10, 40], [10, 20]]  # x, y: columns 10 … 29, rows 20 … 39


def geojson(path, *geometries):
    features = [{"type": "Feature", "geometry": one, "properties": {"objectType": "annotation"}} for one in geometries]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def polygon(*rings):
    return {"type": "Polygon", "coordinates": [np.asarray(ring, float).tolist() for ring in rings]}


def outline_of(mask):
    """The border of a mask's pixels as QuPath exports it: x, y of corners."""
    (ring,) = measure.find_contours(np.pad(mask, 1).repeat(8, 0).repeat(8, 1).astype(float), 0.5)
    return (ring[:, ::-1] - 7.5) / 8


def image_file(path, shape=(64, 64), seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.random.default_rng(seed).integers(100, 200, shape, np.uint16))


@pytest.mark.parametrize("layout", ["stardist", "nnunet", "ome-tiff"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_what_generate_writes_is_read_back(tmp_path, layout, ndim):
    spacing = (2.0, 0.8, 0.8)[-ndim:]
    rng = np.random.default_rng(0)
    made = [ball_stack(rng, count=3) if ndim == 3 else field_of_view(rng) for _ in range(2)]
    samples = [Sample(image, Annotation.of_labels(labels, spacing)) for image, labels in made]
    save_samples(samples, tmp_path / "set", (layout,))
    frames, bare = find_frames(tmp_path / "set")
    assert (len(frames), bare) == (2, 0)
    for frame, one in zip(frames, samples, strict=True):
        np.testing.assert_array_equal(frame.image(), one.image)
        np.testing.assert_array_equal(frame.labels(), one.labels)
    np.testing.assert_allclose(spacing_of(tmp_path / "set", frames, ndim)[0], spacing, rtol=1e-5)
    assert main(["validate", str(tmp_path / "set")]) == 0
    paths, images = read_scenes(tmp_path / "set")
    assert len(paths) == len(images) == 2


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images/x.tif", "masks/x.tif"),
        ("Images/x.png", "Masks/x.tif"),
        ("images/x.ome.tif", "labels/x.tif"),
        ("images/x.tif", "labels/x_cp_masks.png"),
        ("images/x_img.tif", "masks/x_mask.tif"),
        ("imagesTr/x_0000.tif", "labelsTr/x.tif"),
        ("imagesTr/x_0000.png", "instancesTr/x.tif"),
    ],
)
def test_folders_of_images_and_masks_make_pairs(tmp_path, images, masks):
    image, labels = field_of_view(np.random.default_rng(0))
    for name, array in ((images, image), (masks, labels), (images.replace("x", "bare", 1), image)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        io.imsave(tmp_path / name, array, check_contrast=False)
    (frame,), bare = find_frames(tmp_path)
    np.testing.assert_array_equal(frame.image(), image)
    np.testing.assert_array_equal(frame.labels(), labels)
    assert bare == 1
    assert len(find_images(tmp_path)[0]) == 2


def test_classes_of_nnunet_are_no_cells(tmp_path, capsys):
    image, labels = field_of_view(np.random.default_rng(0))
    for name, array in (("imagesTr/x_0000.tif", image), ("labelsTr/x.tif", (labels > 0).astype(np.uint8))):
        (tmp_path / name).parent.mkdir()
        tifffile.imwrite(tmp_path / name, array)
    assert main(["validate", str(tmp_path)]) == 1
    assert "give every cell its own id (skimage.measure.label)" in capsys.readouterr().out


def test_a_channel_of_nnunet_is_a_file(tmp_path):
    for number in range(2):
        image_file(tmp_path / f"imagesTr/x_{number:04d}.tif", seed=number)
    (tmp_path / "labelsTr").mkdir()
    tifffile.imwrite(tmp_path / "labelsTr/x.tif", np.ones((64, 64), np.uint8))
    (frame,), _ = find_frames(tmp_path, channel="2")
    np.testing.assert_array_equal(frame.image(), tifffile.imread(tmp_path / "imagesTr/x_0001.tif"))
    with pytest.raises(DataError, match="case x has no `channel` 3; it has 1, 2"):
        find_frames(tmp_path, channel="3")


def test_labels_of_images_of_several_channels_are_sketched(tmp_path):
    for number in range(2):
        image_file(tmp_path / f"nn/imagesTr/x_{number:04d}.tif", seed=number)
    (tmp_path / "nn" / "instancesTr").mkdir()
    labels = np.zeros((64, 64), np.uint16)
    labels[10:30, 10:30] = 1
    tifffile.imwrite(tmp_path / "nn/instancesTr/x.tif", labels)
    words = ["sketch", str(tmp_path / "nn"), "--like_channel", "2", "--spacing_um", "1", "1", "--structure", "cells"]
    assert main([*words, "--output_dir", str(tmp_path / "sketches")]) == 0


def test_qupaths_outlines_are_the_pixels_whose_centres_they_hold(tmp_path):
    hole = [[15, 25], [20, 25], [20, 30], [15, 30], [15, 25]]
    parts = {"type": "MultiPolygon", "coordinates": [polygon(np.add(SQUARE, 25))["coordinates"]]}
    path = geojson(tmp_path / "x.geojson", polygon(SQUARE, hole), parts)
    wanted = np.zeros((70, 70), np.uint16)
    wanted[20:40, 10:30] = 1
    wanted[25:30, 15:20] = 0
    wanted[45:65, 35:55] = 2
    np.testing.assert_array_equal(read_outlines(path, (70, 70)), wanted)
    whole = wanted[:50]  # the second is cut by the border
    np.testing.assert_array_equal(read_outlines(path, (50, 70)), whole)


@pytest.mark.parametrize("place", ["x.geojson", "masks/x.geojson", "outlines/x.tif.geojson"])
def test_outlines_of_labels_are_these_labels(tmp_path, place):
    image, labels = field_of_view(np.random.default_rng(3))
    outside = place.split("/")[0] if "/" in place else ""
    for folder in ("images" if outside else "", outside):
        (tmp_path / folder).mkdir(exist_ok=True)
    tifffile.imwrite(tmp_path / ("images/x.tif" if outside else "x.tif"), image)
    geojson(tmp_path / place, *(polygon(outline_of(labels == n)) for n in range(1, labels.max() + 1)))
    (frame,), bare = find_frames(tmp_path)
    np.testing.assert_array_equal(frame.labels(), labels)
    assert bare == 0
    out = thin(ThinSettings(tmp_path, output_dir=tmp_path.with_name(f"{tmp_path.name}-thin"), cells=2))
    (kept,), _ = find_frames(out)
    assert len(np.unique(kept.labels())) == 3
    np.testing.assert_array_equal(kept.image(), image)


def test_imagejs_regions_are_its_own_pixels(tmp_path):
    roifile = pytest.importorskip("roifile")
    image_file(tmp_path / "x.tif")
    drawn = [
        roifile.ImagejRoi.frompoints(np.array(SQUARE[:4], float), name="one"),
        roifile.ImagejRoi.frompoints(np.array([[40, 5], [60, 5], [60, 15]], float)),
    ]
    with zipfile.ZipFile(tmp_path / "x_rois.zip", "w") as archive:
        for n, roi in enumerate(drawn):
            archive.writestr(f"{n}.roi", roi.tobytes())
        archive.writestr("notes.txt", "hand-drawn")
    (frame,), _ = find_frames(tmp_path)
    labels = frame.labels()
    wanted = np.zeros((64, 64), bool)
    wanted[20:40, 10:30] = True
    np.testing.assert_array_equal(labels == 1, wanted)
    assert np.count_nonzero(labels == 2) == pytest.approx(100, abs=10)
    drawn[0].tofile(tmp_path / "x.roi")
    with pytest.raises(DataError, match=r"x.tif has labels in .*x.roi, too; keep one of them"):
        find_frames(tmp_path)
    (tmp_path / "x_rois.zip").unlink()
    (frame,), _ = find_frames(tmp_path)
    np.testing.assert_array_equal(frame.labels() > 0, wanted)


BESIDE = np.add(SQUARE, [18, 0])  # shares two columns of twenty
NEARER = np.add(SQUARE, [15, 0])  # shares five


def test_outlines_that_share_a_little_are_parted_for_the_smaller(tmp_path):
    smaller = [[28, 20], [38, 20], [38, 40], [28, 40]]
    labels = read_outlines(geojson(tmp_path / "x.geojson", polygon(BESIDE), polygon(SQUARE)), (64, 64))
    assert np.bincount(labels.ravel())[1:].tolist() == [360, 400]
    with pytest.raises(DataError, match=r"outline 1 and outline 2 lie on one another, with 40 of 200 pixels"):
        read_outlines(geojson(tmp_path / "y.geojson", polygon(SQUARE), polygon(smaller)), (64, 64))


@pytest.mark.parametrize(
    ("geometries", "message"),
    [
        ([polygon(SQUARE), polygon(NEARER)], r"outline 1 and outline 2 lie on one another, with 100 of 400 pixels"),
        ([polygon(SQUARE), polygon(np.add(SQUARE, 100))], r"outline 2 lies outside of its image of 64×64 pixels"),
        ([{"type": "Point", "coordinates": [3, 4]}], "outline 1 is a Point, not an area; remove it in QuPath"),
        ([{"type": "LineString", "coordinates": SQUARE}], "outline 1 is a LineString, not an area"),
        ([polygon(SQUARE[:2])], "outline 1 has fewer than three points"),
        ([polygon([[1.1, 1.1], [1.2, 1.1], [1.2, 1.2]])], "outline 1 covers no pixel"),
        ([{"type": "Polygon", "coordinates": "no"}], "cannot be read as outlines .*; export them again"),
        ([], "holds no outlines"),
    ],
)
def test_outlines_that_cannot_be_are_named(tmp_path, capsys, geometries, message):
    image_file(tmp_path / "x.tif")
    path = geojson(tmp_path / "x.geojson", *geometries)
    with pytest.raises(DataError, match=message):
        read_outlines(path, (64, 64))
    assert main(["prepare", str(tmp_path), "--output_dir", str(tmp_path / "crops")]) == 1
    assert f"cascade prepare: {path}: " in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.geojson", b"{", "x.geojson: cannot be read as outlines"),
        ("x.roi", b"Iout" * 30, "x.roi: outline 1 .* is of type unknown, not an area"),
        ("x.roi", b"no" * 30, "x.roi: cannot be read as outlines"),
        ("x.zip", b"PK", "x.zip: cannot be read as outlines"),
    ],
)
def test_broken_outlines_are_named(tmp_path, name, data, message):
    image_file(tmp_path / "x.tif")
    (tmp_path / name).write_bytes(data)
    (frame,), _ = find_frames(tmp_path)
    with pytest.raises(DataError, match=message):
        frame.labels()


def test_outlines_of_a_plane_for_a_stack_are_told_how(tmp_path, capsys):
    image_file(tmp_path / "x.tif", (8, 64, 64))
    geojson(tmp_path / "x.geojson", polygon(SQUARE))
    assert main(["prepare", str(tmp_path), "--output_dir", str(tmp_path / "c"), "--spacing_um", "1", "1", "1"]) == 1
    assert "one plane of labels (64, 64) for the stack" in capsys.readouterr().err


def test_a_missing_reader_of_rois_is_named(tmp_path, monkeypatch, capsys):
    image_file(tmp_path / "x.tif")
    (tmp_path / "x.roi").write_bytes(b"Iout")
    monkeypatch.setitem(__import__("sys").modules, "roifile", None)
    assert main(["validate", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.splitlines()[-1].endswith(
        "needs roifile, which is not installed: pip install 'cascade-microscopy[imagej]'"
    )


def test_a_pickle_of_cellpose_is_never_opened(tmp_path, capsys):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "opened"), "w"))

    image, labels = field_of_view(np.random.default_rng(0))
    tifffile.imwrite(tmp_path / "x.tif", image)
    np.save(tmp_path / "x_seg.npy", {"masks": labels, "trap": Trap()})
    assert main(["prepare", str(tmp_path), "--output_dir", str(tmp_path / "c")]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "x_seg.npy: is a pickle" in said
    assert "File > Save masks as PNG/tif (Ctrl+N): x_cp_masks.png is read" in said
    assert not (tmp_path / "opened").exists()
    io.imsave(tmp_path / "x_cp_masks.png", labels, check_contrast=False)
    (frame,), _ = find_frames(tmp_path)
    np.testing.assert_array_equal(frame.labels(), labels)
    (tmp_path / "x_seg.npy").unlink()
    (tmp_path / "x_cp_masks.png").unlink()
    for folder, name, array in (("images", "x.tif", image), ("masks", "x_seg.npy", None)):
        (tmp_path / folder).mkdir()
        tifffile.imwrite(tmp_path / folder / name, array) if array is not None else np.save(
            tmp_path / folder / name, {}
        )
    (tmp_path / "x.tif").unlink()
    with pytest.raises(DataError, match=r"masks/x_seg\.npy: is a pickle"):
        find_frames(tmp_path)


def channels_file(path, kind):
    """Three channels, each of one value, named where the format knows names."""
    image = np.stack([np.full((20, 24), 10 * n, np.uint16) for n in (1, 2, 3)])
    if kind == "ome":
        tifffile.imwrite(path, image, ome=True, metadata={"axes": "CYX", "Channel": {"Name": ["DAPI", "GFP", "488"]}})
    elif kind == "imagej":
        tifffile.imwrite(path, image, imagej=True, metadata={"axes": "CYX", "mode": "composite"})
    elif kind == "stack":
        deep = np.repeat(image[None], 5, 0)
        tifffile.imwrite(path, deep, imagej=True, metadata={"axes": "ZCYX", "Labels": ["DAPI", "GFP", "488"]})
    elif kind == "bare":
        tifffile.imwrite(path, image, photometric="minisblack", metadata=None)
    else:
        io.imsave(path, np.moveaxis(image, 0, -1).astype(np.uint8), check_contrast=False)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("ome", ["DAPI", "gfp", "488"]),
        ("imagej", ["1", "2", "3"]),
        ("stack", ["1", "2", "3"]),
        ("bare", ["1", "2", "3"]),
        ("rgb", ["red", "Green", "blue"]),
    ],
)
def test_a_channel_is_chosen_by_name_or_number(tmp_path, kind, names):
    path = tmp_path / ("x.png" if kind == "rgb" else "x.tif")
    channels_file(path, kind)
    for number, name in enumerate(names, 1):
        for channel in (name, str(number)):
            image = read_image(path, channel)
            assert image.shape == ((5, 20, 24) if kind == "stack" else (20, 24))
            assert (image == 10 * number).all()
    for wrong in ("4", "0", "Cy5", "-1"):
        with pytest.raises(DataError, match=rf"no `channel` {wrong}; it has 3"):
            read_image(path, wrong)
    if kind != "bare":
        with pytest.raises(DataError, match="`channel`"):
            read_image(path)


def test_a_channel_of_one_is_the_first(tmp_path):
    image_file(tmp_path / "x.tif")
    assert read_image(tmp_path / "x.tif", "1").shape == (64, 64)
    with pytest.raises(DataError, match="no `channel` 2; it has 1;"):
        read_image(tmp_path / "x.tif", "2")


def test_commands_take_a_channel(tmp_path, capsys):
    folder = tmp_path / "set"
    folder.mkdir()
    for n in range(2):
        image, labels = field_of_view(np.random.default_rng(n))
        noise = np.random.default_rng(9).integers(90, 99, image.shape, np.uint16)
        named = {"axes": "CYX", "Channel": {"Name": ["phase", "DAPI"]}}
        tifffile.imwrite(folder / f"{n}.tif", np.stack([noise, image]), ome=True, metadata=named)
        tifffile.imwrite(folder / f"{n}_masks.tif", labels)
    (folder / "dataset.json").write_text('{"spacing_um": [0.5, 0.5]}')
    for command in (["validate", str(folder)], ["prepare", str(folder), "--output_dir", str(tmp_path / "crops")]):
        assert main(command) == 1
        said = capsys.readouterr()
        assert "2 channels (2, 160, 160) (phase, DAPI); choose the one that shows the cells with" in said.out + said.err
        assert main([*command, "--channel", "DAPI"]) == 0
    paths, images = read_scenes(folder, channel="2")
    assert [path.name for path in paths] == ["0.tif", "1.tif"]
    assert all(image.shape == (1, 160, 160) and image.max() > 300 for image in images)


def test_a_microscopes_format_without_its_reader_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "bioio", None)
    (tmp_path / "x.czi").write_bytes(b"ZISRAWFILE")
    tifffile.imwrite(tmp_path / "x_masks.tif", ellipse((64, 64), (30, 30), (9, 9)).astype(np.uint8))
    assert main(["validate", str(tmp_path)]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith("x.czi: needs bioio, which is not installed: pip install 'cascade-microscopy[bioio]'")


def test_bioio_reads_what_was_written(tmp_path):
    pytest.importorskip("bioio_ome_tiff", reason="bioio and its reader of OME-TIFF are not installed")
    from cascade.vendor import read_vendor

    image = np.random.default_rng(0).integers(0, 999, (2, 5, 20, 24), np.uint16)
    named = {"axes": "CZYX", "PhysicalSizeZ": 2.0, "PhysicalSizeY": 0.4, "PhysicalSizeX": 0.3}
    tifffile.imwrite(tmp_path / "x.ome.tif", image, metadata=named | {"Channel": {"Name": ["DAPI", "GFP"]}})
    found = read_vendor(tmp_path / "x.ome.tif")
    np.testing.assert_array_equal(found.array, image[None])
    assert found.channels == ("DAPI", "GFP")
    assert found.spacing_um == (2.0, 0.4, 0.3)
