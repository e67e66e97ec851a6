import numpy as np
import pytest
import tifffile
from conftest import field_of_view, write_ctc_2d
from skimage import io

from cascade.data.frames import check_pair, find_frames
from cascade.data.spacing import spacing_of
from cascade.reading import DataError


def save(path, array, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = {"photometric": "minisblack"} if array.shape[-1] not in (3, 4) else {}
    tifffile.imwrite(path, array, **grey | options)
    return path


def test_planes_stacks_and_single_slices_of_the_challenge_are_found(tmp_path):
    save(tmp_path / "01" / "t0003.tif", np.zeros((5, 8, 8), np.uint16))
    save(tmp_path / "01" / "t0004.tif", np.zeros((5, 8, 8), np.uint16))
    save(tmp_path / "01" / "t0009.tif", np.zeros((5, 8, 8), np.uint16))
    save(tmp_path / "01_GT/SEG/man_seg_0003_002.tif", np.ones((8, 8), np.uint16))
    save(tmp_path / "01_GT/SEG/man_seg0004.tif", np.ones((5, 8, 8), np.uint16))
    frames, bare = find_frames(tmp_path)
    assert [(f.name, f.z) for f in frames] == [("01/t0004", None), ("01/t0003/z002", 2)]
    assert bare == 1
    for frame in frames:
        check_pair(frame, frame.image(), frame.labels())


def test_silver_truth_and_sequences_are_chosen(tmp_path):
    write_ctc_2d(tmp_path / "a")
    save(tmp_path / "a/02/t000.tif", np.zeros((8, 8), np.uint16))
    save(tmp_path / "a/02_ST/SEG/man_seg000.tif", np.ones((8, 8), np.uint16))
    assert len(find_frames(tmp_path / "a", "gt", ["01"])[0]) == 3
    assert find_frames(tmp_path / "a", "st", ["02"])[0][0].name == "02/t000"
    with pytest.raises(DataError, match=r"02_GT.*choose the other truth, st"):
        find_frames(tmp_path / "a", "gt")
    with pytest.raises(DataError, match="no sequence 07"):
        find_frames(tmp_path / "a", "gt", ["07"])


def test_pairs_are_found_and_bare_images_counted(tmp_path):
    image, labels = field_of_view(np.random.default_rng(0))
    for stem in ("x", "y"):
        save(tmp_path / f"{stem}.tif", image)
    save(tmp_path / "x_masks.tif", labels)
    frames, bare = find_frames(tmp_path)
    assert [f.name for f in frames] == ["x"]
    assert bare == 1
    save(tmp_path / "z_masks.tif", labels)
    with pytest.raises(DataError, match=r"z_masks.*there is no image z.tif"):
        find_frames(tmp_path)
    with pytest.raises(DataError, match=r"sequences need the Cell Tracking Challenge layout"):
        find_frames(tmp_path, sequences=["01"])


def test_pairs_are_found_as_cellpose_itself_names_them(tmp_path):
    image, labels = field_of_view(np.random.default_rng(0))
    for name, array in {
        "000_img.png": image, "000_masks.png": labels, "x.tif": image, "x_cp_masks.png": labels,
        "y.PNG": image, "y_cp_masks.tif": labels, "bare.tif": image,
    }.items():  # fmt: skip
        io.imsave(tmp_path / name, array, check_contrast=False)
    frames, bare = find_frames(tmp_path)
    assert [f.name for f in frames] == ["000_img", "x", "y"]
    assert bare == 1
    for frame in frames:
        np.testing.assert_array_equal(frame.image(), image)
        np.testing.assert_array_equal(frame.labels(), labels)
        assert spacing_of(tmp_path, [frame], 2) == ((1.0, 1.0), "assumed")
    save(tmp_path / "x_masks.tif", labels)
    with pytest.raises(DataError, match=r"x.tif has labels in .*x_cp_masks.png, too"):
        find_frames(tmp_path)
    (tmp_path / "x_masks.tif").unlink()
    save(tmp_path / "w_cp_masks.tif", labels)
    with pytest.raises(DataError, match=r"there is no image w.tif"):
        find_frames(tmp_path)


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        find_frames(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no annotated images; expected"):
        find_frames(tmp_path)
    (tmp_path / "01").mkdir()
    with pytest.raises(DataError, match=r"no images named t000.tif"):
        find_frames(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["x.tif", "x_mask.tif"], "x_mask.tif: if these are the labels of x.tif, rename them to x_masks.tif"),
        (["x_img.png", "x_labels.png"], "labels of x_img.png, rename them to x_masks.png"),
        (["y.tif", "y_masks.tif", "x.ome.tif", "x_mask.tif"], "labels of x.ome.tif, rename them to x_masks.tif"),
        (["raw/x.tif", "truth/x.tif"], "they lie in raw, truth: name the folder of images images, .* labels masks, or"),
        (["train/images/x.tif", "train/masks/x.tif"], "name .*train, which holds them"),
        (["images/x.tif", "masks/y.tif"], "masks/y.tif: there is no image images/y.tif for it"),
        (["images/x.tif", "masks/x.tif", "labels/x.tif"], "masks, labels all hold labels of images; keep one of them"),
        (["images/x.tif", "masks/x.tif", "masks/x_mask.tif"], "has labels in .*masks/x.tif, too; keep one of them"),
        (["imagesTr/x.tif", "labelsTr/x.tif"], "nnU-Net names the image of case x x_0000.tif"),
        (["imagesTr/x_0000.tif", "imagesTr/x_0001.tif", "labelsTr/x.tif"], "2 channels; choose .*1 for _0000, 2 for"),
        (["x.jpg", "x_masks.png"], "no image x.tif for it; x.jpg is not read: export TIFF or PNG .*JPEG.* is lossy"),
        (["x.JPEG"], "no annotated images; .*x.JPEG is not read: export TIFF"),
        (["x.lsm"], "x.lsm is not read: export TIFF"),
        (["01/t000.jpg"], "t001.tif, …; t000.jpg is not read: export TIFF"),
    ],
)
def test_layouts_that_nearly_match_are_told_how(tmp_path, files, message):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=message):
        find_frames(tmp_path)


def test_a_sequence_alone_and_one_without_truth_are_told_how(tmp_path):
    write_ctc_2d(tmp_path)
    with pytest.raises(DataError, match=r"name .*, which holds the truth of 01, too"):
        find_frames(tmp_path / "01")
    save(tmp_path / "02/t000.tif", np.zeros((8, 8), np.uint16))
    with pytest.raises(DataError, match=r"02_GT.*only the annotated sequences, 01"):
        find_frames(tmp_path)


@pytest.mark.parametrize("masks", ["x_masks.tif", "x_masks.ome.tif", "x.ome_masks.tif", "x_cp_masks.png"])
def test_ome_tiff_makes_pairs(tmp_path, masks):
    for name in ("x.ome.tif", masks, "x_preview.tif"):
        (tmp_path / name).touch()
    (frame,), bare = find_frames(tmp_path)
    assert (frame.name, frame.image_path.name, frame.label_path.name, bare) == ("x.ome", "x.ome.tif", masks, 1)


def test_ome_tiff_in_upper_case_makes_pairs(tmp_path):
    for name in ("X.OME.TIF", "X_masks.OME.TIF"):
        (tmp_path / name).touch()
    (frame,), bare = find_frames(tmp_path)
    assert (frame.image_path.name, frame.label_path.name, bare) == ("X.OME.TIF", "X_masks.OME.TIF", 0)
    (tmp_path / "X.ome.tif").touch()
    with pytest.raises(DataError, match=r"there is X\.OME\.TIF, too; keep one of them"):
        find_frames(tmp_path)


def test_one_plane_of_labels_for_a_stack_is_told_how(tmp_path):
    save(tmp_path / "x.tif", np.zeros((5, 8, 8), np.uint16))
    save(tmp_path / "x_masks.tif", np.ones((8, 8), np.uint16))
    (frame,) = find_frames(tmp_path)[0]
    with pytest.raises(DataError, match=r"one plane of labels \(8, 8\) for the stack .*man_seg_000_012.tif"):
        check_pair(frame, frame.image(), frame.labels())


def test_shapes_that_do_not_fit_are_named(tmp_path):
    save(tmp_path / "x.tif", np.zeros((8, 9), np.uint16))
    save(tmp_path / "x_masks.tif", np.ones((8, 8), np.uint16))
    (frame,) = find_frames(tmp_path)[0]
    with pytest.raises(DataError, match=r"shape \(8, 8\) does not fit .*\(8, 9\)"):
        check_pair(frame, frame.image(), frame.labels())


def test_spacing_is_read_from_where_it_is_stored(tmp_path):
    stack = np.zeros((5, 8, 8), np.uint16)
    metadata = {"axes": "ZYX", "spacing": 1.5, "unit": "um"}
    save(tmp_path / "x.tif", stack, imagej=True, resolution=(2.0, 4.0), metadata=metadata)
    save(tmp_path / "x_masks.tif", np.ones((5, 8, 8), np.uint16))
    frames, _ = find_frames(tmp_path)
    assert spacing_of(tmp_path, frames, 3) == ((1.5, 0.25, 0.5), "TIFF metadata")
    ome = {"axes": "ZYX", "PhysicalSizeZ": 2.0, "PhysicalSizeY": 0.4, "PhysicalSizeX": 0.3}
    save(tmp_path / "x.tif", stack, ome=True, metadata=ome)
    assert spacing_of(tmp_path, frames, 3) == ((2.0, 0.4, 0.3), "TIFF metadata")
    (tmp_path / "dataset.json").write_text('{"spacing_um": [3, 1, 1]}')
    assert spacing_of(tmp_path, frames, 3) == ((3.0, 1.0, 1.0), "dataset.json")
    (tmp_path / "dataset.json").unlink()
    save(tmp_path / "x.tif", stack)
    assert spacing_of(tmp_path, frames, 3)[1] == "assumed"
    for wrong in ([1, 1], [1, 1, 0], [np.nan, 1, 1], [1, np.inf, 1]):
        with pytest.raises(DataError, match="needs 3 lengths above 0"):
            spacing_of(tmp_path, frames, 3, wrong)
    assert spacing_of(tmp_path, frames, 3, [3, 2, 1]) == ((3.0, 2.0, 1.0), "given")


ELSEWHERE = (
    '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
    '<BinaryOnly MetadataFile="other.ome.tif" UUID="urn:uuid:0"/></OME>'
)


@pytest.mark.parametrize(
    ("options", "tag"),
    [
        (dict(imagej=True, resolution=(4.0, 4.0), metadata={"unit": "um", "axes": "YX"}), "YResolution"),
        (dict(imagej=True, resolution=(4.0, 4.0), metadata={"unit": "um", "axes": "YX"}), "XResolution"),
        (dict(ome=True, metadata={"axes": "YX", "PhysicalSizeX": 0.5}), None),
        (dict(metadata=None, description=ELSEWHERE), None),
    ],
)
def test_half_a_voxel_size_is_none(tmp_path, options, tag):
    save(tmp_path / "x_masks.tif", np.ones((8, 8), np.uint16))
    path = save(tmp_path / "x.tif", np.zeros((8, 8), np.uint16), **options)
    if tag:  # struck out by renaming it to one that nobody knows
        with tifffile.TiffFile(path, mode="r+b") as tiff:
            tiff.filehandle.seek(tiff.pages[0].tags[tag].offset)
            tiff.filehandle.write(np.array([65000], tiff.byteorder + "u2").tobytes())
    assert spacing_of(tmp_path, find_frames(tmp_path)[0], 2) == ((1.0, 1.0), "assumed")


@pytest.mark.parametrize(
    "text",
    [
        '{"spacing_um": [NaN, 1]}', "{'spacing_um': [1, 1]}", "[1, 1]", '{"spacing_um": "no"}',
        '{"spacing_um": [0, 1]}', '{"spacing_um": [1]}', '{"spacing_um": true}', "null",
        '{"spacing_um": [1,', "", "1", '{"µ": "\\xb5"',
    ],
)  # fmt: skip
def test_a_broken_record_of_the_spacing_is_named(tmp_path, text):
    write_ctc_2d(tmp_path, frames=1)
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=r"dataset.json: .*write") as error:
        spacing_of(tmp_path, find_frames(tmp_path)[0], 2)
    assert "object has no attribute" not in str(error.value)


def test_a_record_in_another_encoding_is_named_and_a_mark_in_front_is_passed_over(tmp_path):
    write_ctc_2d(tmp_path, frames=1)
    text = '{"spacing_um": [0.5, 0.25], "author": "Bártová"}'
    for encoding in ("utf-16", "latin-1"):
        (tmp_path / "dataset.json").write_bytes(text.encode(encoding))
        with pytest.raises(DataError, match=r"dataset.json: cannot be read .*in UTF-8"):
            spacing_of(tmp_path, find_frames(tmp_path)[0], 2)
    (tmp_path / "dataset.json").write_bytes(text.encode("utf-8-sig"))
    assert spacing_of(tmp_path, find_frames(tmp_path)[0], 2) == ((0.5, 0.25), "dataset.json")


def test_one_image_in_two_files_is_one_too_many(tmp_path):
    for name in ("x.tif", "x_masks.tif"):
        save(tmp_path / name, np.ones((16, 16), np.uint8))
    io.imsave(tmp_path / "x.png", np.zeros((16, 16), np.uint8), check_contrast=False)
    with pytest.raises(DataError, match=r"x.tif: there is x.png, too"):
        find_frames(tmp_path)


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ("01/t000.tif", "01/t0000.tif", "time 0"),
        ("01/t000.tif", "01/t000.TIFF", None),
        ("01_GT/SEG/man_seg000.tif", "01_GT/SEG/man_seg_000.tif", "time 0"),
        ("01_GT/SEG/man_seg000.tif", "01_GT/SEG/man_seg0000.tif", "time 0"),
        ("01_GT/SEG/man_seg000.tif", "01_GT/SEG/man_seg000.png", "time 0"),
        ("01_GT/SEG/man_seg_001_002.tif", "01_GT/SEG/man_seg_001_0002.TIF", "time 1, slice 2"),
    ],
)
def test_two_files_of_one_frame_are_one_too_many(tmp_path, first, second, what):
    for name in ("01/t000.tif", "01/t001.tif", "01_GT/SEG/man_seg000.tif", first, second):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(DataError, match="keep one of them") as error:
        find_frames(tmp_path)
    for part in (first.split("/")[-1], second.split("/")[-1], what or ""):
        assert part in str(error.value)


@pytest.mark.parametrize("suffix", [".TIF", ".tiff", ".TIFF"])
def test_files_of_the_challenge_may_end_otherwise(tmp_path, suffix):
    write_ctc_2d(tmp_path)
    for path in [*tmp_path.rglob("*.tif")]:
        path.rename(path.with_suffix(suffix))
    frames, bare = find_frames(tmp_path)
    assert [frame.name for frame in frames] == ["01/t000", "01/t001", "01/t002"]
    assert bare == 0
    for frame in frames:
        check_pair(frame, frame.image(), frame.labels())


def test_hidden_files_are_passed_over(tmp_path):
    """macOS leaves a file of attributes, ._x.tif, beside every x.tif on other systems' discs."""
    image, labels = field_of_view(np.random.default_rng(0))
    for folder, names in (("pairs", ("x.tif", "x_masks.tif")), ("set", ("01/t000.tif", "01_GT/SEG/man_seg000.tif"))):
        for name, array in zip(names, (image, labels), strict=True):
            path = save(tmp_path / folder / name, array)
            path.with_name(f"._{path.name}").write_bytes(b"attributes")
        (tmp_path / folder / "._y.czi").touch()
        frames, bare = find_frames(tmp_path / folder)
        assert [path.name for frame in frames for path in (frame.image_path, frame.label_path)] == [
            name.split("/")[-1] for name in names
        ]
        assert bare == 0
