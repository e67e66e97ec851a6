from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from skimage import io

from cascade.data.frames import Frame
from cascade.data.spacing import stored_spacing
from cascade.evaluation.predictions import read_predictions
from cascade.reading import DataError, read_image, read_labels

LABELS = np.zeros((20, 20), np.uint16)
LABELS[2:6, 2:6], LABELS[10:15, 10:15] = 1, 2


def save(path, array, **options):
    tifffile.imwrite(path, array, **options)
    return path


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS.astype(np.float32), "float32; save unsigned integers"),
        (LABELS.astype(np.int16) - 1, r"ids down to -1; .*labels.clip\(0\)"),
        (LABELS.astype(np.uint32) * 1_000_000_000, "ids up to 2000000000; number the cells"),
        (LABELS > 0, "binary mask"),
        ((LABELS > 0).astype(np.uint8) * 255, "binary mask"),
        (np.stack([LABELS] * 3, -1).astype(np.uint8), "labels in colour"),
        (np.zeros((2, 5, 6, 7), np.uint16), "4 axes"),
    ],
)
def test_label_images_that_are_none_are_refused_by_name(tmp_path, labels, message):
    path = save(tmp_path / "x_masks.tif", labels)
    with pytest.raises(DataError, match=message) as error:
        read_labels(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_one_annotated_cell_is_no_binary_mask(tmp_path):
    np.testing.assert_array_equal(
        read_labels(save(tmp_path / "a.tif", np.where(LABELS == 1, 1, 0).astype("u2"))) > 0, LABELS == 1
    )


def test_ids_are_of_a_type_that_can_be_counted(tmp_path):
    for dtype in ("u1", "u2", "u4", "i4", "i8"):
        assert read_labels(save(tmp_path / "a.tif", LABELS.astype(dtype))).dtype == dtype
    found = read_labels(save(tmp_path / "a.tif", LABELS.astype("u8")))
    np.testing.assert_array_equal(np.bincount(found.ravel()), np.bincount(LABELS.ravel()))
    with pytest.raises(DataError, match="ids up to 8589934592; number the cells"):
        read_labels(save(tmp_path / "a.tif", LABELS.astype("u8") << 32))


def test_truncated_and_coloured_images_are_refused_by_name(tmp_path):
    path = save(tmp_path / "x.tif", np.zeros((64, 64), np.uint16), compression="zlib")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"x.tif: cannot be read"):
        read_image(path)
    with pytest.raises(DataError, match="colour image"):
        read_image(save(tmp_path / "c.tif", np.zeros((64, 64, 3), np.uint8)))
    with pytest.raises(DataError, match="no intensities"):
        read_image(save(tmp_path / "n.tif", np.full((8, 8), np.nan, np.float32)))


FIJI = "ImageJ=1.54f\nimages=16\nchannels=2\nslices={}\nhyperstack=true\nmode=composite\n"


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((3, 16, 16), dict(imagej=True, metadata={"axes": "CYX"}), "3 channels .*choose the one"),
        ((2, 16, 16), dict(ome=True, metadata={"axes": "CYX"}), "2 channels .*choose the one"),
        ((3, 16, 16), dict(photometric="rgb", planarconfig="separate"), "3 channels .*choose the one"),
        ((5, 2, 16, 16), dict(imagej=True, metadata={"axes": "ZCYX"}), "2 channels .*choose the one"),
        ((9, 16, 16), dict(imagej=True, metadata={"axes": "TYX"}), "a time series of 9 frames .*save each frame"),
        ((9, 5, 16, 16), dict(ome=True, metadata={"axes": "TZYX"}), "a time series of 9 frames .*save each frame"),
        ((3, 16, 16), dict(imagej=True, metadata={"axes": "ZYX"}), None),
        ((6, 16, 16), dict(imagej=True, metadata={"axes": "CYX", "mode": "composite"}), "6 channels .*choose the one"),
        ((16, 16, 16), dict(metadata=None, description=FIJI.format(8)), "2 channels .*choose the one"),
        ((2, 16, 16), dict(metadata=None, description=FIJI.format(1)), "2 channels .*choose the one"),
        ((9, 16, 16), dict(imagej=True), None),  # whose axes tifffile calls CYX
        ((1, 5, 1, 16, 16), dict(imagej=True, metadata={"axes": "TZCYX"}), None),
    ],
)
def test_channels_and_times_are_no_slices(tmp_path, shape, options, message):
    path = save(tmp_path / "x.tif", np.zeros(shape, np.uint8), **options)
    if message is None:
        assert read_image(path).ndim == 3
    else:
        with pytest.raises(DataError, match=rf"x.tif: {message}"):
            read_image(path)


def test_png_with_transparency_is_no_stack(tmp_path):
    io.imsave(tmp_path / "x.png", np.zeros((8, 8, 2), np.uint8), check_contrast=False)
    with pytest.raises(DataError, match="colour image"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("compression", ["jpeg", "patched"])
def test_labels_that_were_compressed_with_loss_are_refused(tmp_path, compression):
    """Also where the codec is not there to read them: the mend is the same."""
    if compression == "jpeg":
        pytest.importorskip("imagecodecs")
        path = save(tmp_path / "x_masks.tif", np.kron(LABELS, np.ones((8, 8))).astype(np.uint8), compression="jpeg")
    else:
        path = save(tmp_path / "x_masks.tif", LABELS.astype(np.uint8))
        with tifffile.TiffFile(path, mode="r+b") as tiff:
            tiff.pages[0].tags["Compression"].overwrite(7)
    with pytest.raises(DataError, match=r"x_masks.tif: JPEG, which changes ids; save the labels anew"):
        read_labels(path)


@pytest.mark.parametrize("suffix", [".tif", ".TIF", ".tiff", ".TIFF", ".png", ".PNG"])
def test_files_are_read_by_their_suffix_in_lower_or_upper_case(tmp_path, suffix):
    image = np.arange(400, dtype=np.uint16).reshape(20, 20)
    if suffix.lower() == ".png":
        io.imsave(tmp_path / "x.png", image, check_contrast=False)
        (tmp_path / "x.png").rename(tmp_path / f"x{suffix}")
    else:
        tifffile.imwrite(tmp_path / f"x{suffix}", image)
    np.testing.assert_array_equal(read_image(tmp_path / f"x{suffix}"), image)
    np.testing.assert_array_equal(read_labels(tmp_path / f"x{suffix}"), image)


@pytest.mark.parametrize("name", ["x.tif", "x.png"])
@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_files_that_are_no_pictures_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    for read in (read_image, read_labels):
        with pytest.raises(DataError, match=rf"{name}: cannot be read .*; replace the file") as error:
            read(tmp_path / name)
        assert "\n" not in str(error.value)


def test_several_images_in_one_file_are_refused_and_previews_are_not(tmp_path):
    path = tmp_path / "positions.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for _ in range(3):
            tiff.write(LABELS, metadata={"axes": "YX"})
    with pytest.raises(DataError, match=r"positions\.ome\.tif: 3 images in one file; save each"):
        read_image(path)
    with tifffile.TiffWriter(tmp_path / "preview.ome.tif", ome=True) as tiff:
        tiff.write(LABELS, metadata={"axes": "YX"})
        tiff.write(LABELS[::2, ::2], metadata={"axes": "YX"})
    assert (read_image(tmp_path / "preview.ome.tif") == LABELS).all()


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("nm", 1e-3), ("µm", 1), ("\u03bcm", 1), ("mm", 1e3), ("pixel", None), ("reference frame", None)],
)
def test_units_of_ome_are_told_apart(tmp_path, unit, factor):
    told = {f"PhysicalSize{axis}": size for axis, size in zip("ZYX", (2.0, 0.5, 0.25), strict=True)}
    told |= {f"PhysicalSize{axis}Unit": unit for axis in "ZYX"}
    tifffile.imwrite(tmp_path / "x.tif", np.zeros((3, 8, 8), np.uint16), ome=True, metadata={"axes": "ZYX"} | told)
    found = stored_spacing(tmp_path / "x.tif", 3)
    assert found == (None if factor is None else pytest.approx((2.0 * factor, 0.5 * factor, 0.25 * factor)))


@pytest.mark.parametrize(("unit", "factor"), [("um", 1), ("microns", 1), ("nm", 1e-3), ("pixel", None)])
def test_units_of_imagej_are_told_apart(tmp_path, unit, factor):
    told = {"axes": "ZYX", "unit": unit, "spacing": 2.0}
    stack = np.zeros((3, 8, 8), np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", stack, imagej=True, resolution=(4, 2), metadata=told)
    found = stored_spacing(tmp_path / "x.tif", 3)
    assert found == (None if factor is None else pytest.approx((2.0 * factor, 0.5 * factor, 0.25 * factor)))


def test_one_file_of_predictions_is_not_that_of_two_sequences(tmp_path):
    (tmp_path / "found").mkdir()
    save(tmp_path / "found" / "mask000.tif", LABELS)
    frames = [Frame(f"{n}/t000", tmp_path / n / "t000.tif", tmp_path / f"{n}_GT/man_seg000.tif") for n in ("01", "02")]
    test = [SimpleNamespace(image=LABELS + 100, labels=LABELS)] * 2
    with pytest.raises(DataError, match=r"mask000\.tif: is the only file of 01/t000 and of 02/t000; lay those of each"):
        read_predictions(tmp_path / "found", test, frames)
    for n in ("01", "02"):
        (tmp_path / "found" / f"{n}_RES").mkdir()
        save(tmp_path / "found" / f"{n}_RES" / "mask000.tif", LABELS * int(n))
    (tmp_path / "found" / "mask000.tif").unlink()
    assert [one.max() for one in read_predictions(tmp_path / "found", test, frames)] == [2, 4]
