"""What is wrong with a data set is the same to those who validate it and to those who prepare it."""

import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import ball_stack, field_of_view, write_ctc_2d

from cascade.data.frames import find_frames
from cascade.data.prepare import prepare
from cascade.data.settings import PrepareSettings, ValidateSettings
from cascade.data.validate import soundness, validate
from cascade.reading import DataError


def write_pairs(folder: Path, **arrays: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        tifffile.imwrite(folder / f"{name}.tif", array)
    return folder


def both_say(source: Path, words: str) -> None:
    """The first error of one is the error of the other; and nothing is written."""
    errors = validate(ValidateSettings(source)).errors
    assert errors
    assert re.search(words, errors[0]), errors
    with pytest.raises(DataError) as error:
        prepare(PrepareSettings(source, output_dir=source.parent / "crops", crop_size=32))
    assert str(error.value) == errors[0]
    assert not (source.parent / "crops").exists()


def many_cells(count: int) -> tuple[np.ndarray, np.ndarray]:
    """A grid of square cells on a dark background, image uint16, labels int64."""
    columns = 24
    labels = np.zeros((10 * (count // columns + 1), 10 * columns), np.int64)
    for n in range(count):
        y, x = 10 * (n // columns), 10 * (n % columns)
        labels[y + 2 : y + 8, x + 2 : x + 8] = n + 1
    light = np.random.default_rng(0).normal(100, 5, labels.shape) + 400 * (labels > 0)
    return light.astype(np.uint16), labels


def quartered(labels: np.ndarray) -> np.ndarray:
    return (labels + 3) // 4


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda image, labels: image, r"x_masks.tif: the image x.tif itself, not labels"),
        (lambda image, labels: np.where(labels > 0, image, 0), r"x_masks.tif: the image x.tif itself, not labels"),
        (lambda image, labels: image // 2, r"x_masks.tif: [0-9]+ ids in .* as grey levels of an image lie"),
        (lambda image, labels: (image // 6).astype(np.uint8), r"x_masks.tif: [0-9]+ ids in .* as grey levels of an im"),
        (lambda image, labels: quartered(labels), r"x_masks.tif: 3 of 3 ids lie in several pieces: 1, 2, 3"),
        (lambda image, labels: labels * 0 + 1 + (labels > 0), "ids 2 lie in many pieces each, as classes do"),
        (lambda image, labels: (labels > 0) * (1 + labels % 2), "ids 1, 2 lie in many pieces each, as classes do"),
    ],
)
def test_labels_that_are_none(tmp_path, spoil, words):
    image, labels = field_of_view(np.random.default_rng(0))
    both_say(write_pairs(tmp_path / "set", x=image, x_masks=spoil(image, labels).astype(np.uint16)), words)


@pytest.mark.parametrize(("count", "ids"), [(259, "1, 2, 3"), (420, "1, 2, 3, 4, 5, …")])
def test_ids_that_were_wrapped_around(tmp_path, count, ids):
    image, labels = many_cells(count)
    source = write_pairs(tmp_path / "set", x=image, x_masks=labels.astype(np.uint8))
    both_say(source, rf"x_masks.tif: ids {ids} stand for several cells each.* save the labels anew as uint16")
    tifffile.imwrite(source / "x_masks.tif", labels.astype(np.uint16))
    assert validate(ValidateSettings(source)).errors == []


def test_labels_of_jpeg(tmp_path):
    pytest.importorskip("imagecodecs")
    image, labels = field_of_view(np.random.default_rng(0))
    source = write_pairs(tmp_path / "set", x=image)
    tifffile.imwrite(source / "x_masks.tif", labels.astype(np.uint8), compression="jpeg")
    both_say(source, "x_masks.tif: JPEG, which changes ids")


def test_few_ids_in_pieces_are_mended_and_noted(tmp_path, caplog):
    image, labels = field_of_view(np.random.default_rng(0))
    labels[labels == 5] = 4
    source = write_pairs(tmp_path / "set", x=image, x_masks=labels)
    found = validate(ValidateSettings(source))
    assert found.errors == []
    assert any("x_masks.tif: ids in several pieces: 4; prepare keeps the largest of each" in w for w in found.warnings)
    assert prepare(PrepareSettings(source, output_dir=tmp_path / "crops", crop_size=32)).is_dir()
    assert "x_masks.tif: ids in several pieces: 4;" in caplog.text
    assert "1 ids in several pieces (largest kept)" in caplog.text


def test_cells_darker_than_what_surrounds_them(tmp_path):
    source = write_ctc_2d(tmp_path / "set")
    paths = sorted((source / "01").iterdir())
    images = [tifffile.imread(path) for path in paths]
    for path, image in zip(paths, images, strict=True):
        tifffile.imwrite(path, 2000 - np.minimum(image, 2000))
    both_say(source, r"t000.tif and 2 more: 36 of 36 cells are darker than what surrounds them; .*invert the images")
    for path, image in zip(paths[1:], images[1:], strict=True):
        tifffile.imwrite(path, image)
    both_say(source, r"t000.tif: 12 of 12 cells are darker")


def test_mixed_voxel_sizes(tmp_path):
    source = write_ctc_2d(tmp_path / "set")
    for path, per_um in zip(sorted((source / "01").iterdir()), (2.0, 2.001, 4.0), strict=True):
        stored = dict(imagej=True, resolution=(per_um, per_um), metadata={"axes": "YX", "unit": "um"})
        tifffile.imwrite(path, tifffile.imread(path), **stored)
    both_say(source, r"t002.tif: voxels of 0.25 × 0.25 µm, but those of .*t000.tif are 0.5 × 0.5; prepare them apart")
    assert soundness(source, find_frames(source)[0], [0.5, 0.5]).errors == []
    (source / "dataset.json").write_text('{"spacing_um": [0.5, 0.5]}')
    assert validate(ValidateSettings(source)).errors == []


def test_planes_and_stacks_in_one_set(tmp_path):
    (plane, plane_labels), (stack, stack_labels) = (
        make(np.random.default_rng(0)) for make in (field_of_view, ball_stack)
    )
    source = write_pairs(tmp_path / "set", a=plane, a_masks=plane_labels, b=stack, b_masks=stack_labels)
    both_say(source, r"b.tif: 3 axes, but .*a.tif has 2; prepare planes and stacks apart")


def test_whole_stacks_and_single_slices_in_one_set(tmp_path):
    image, labels = ball_stack(np.random.default_rng(0))
    source = tmp_path / "set"
    for n, (name, array) in enumerate((("man_seg000", labels), ("man_seg_001_012", labels[12]))):
        for folder in ("01", "01_GT/SEG"):
            (source / folder).mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(source / f"01/t{n:03d}.tif", image)
        tifffile.imwrite(source / f"01_GT/SEG/{name}.tif", array)
    (source / "dataset.json").write_text('{"spacing_um": [2, 1, 1]}')
    both_say(source, r"man_seg000.tif: labels of a whole stack, but .*man_seg_001_012.tif are of one slice; .* apart")


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((10, 10), "x.tif: planes of 10×10 pixels hold no whole cell; give images of 16 pixels"),
        ((1, 500), "x.tif: planes of 1×500 pixels hold no whole cell"),
        ((5, 40, 2), "x.tif: planes of 40×2 pixels hold no whole cell"),
        ((1, 40, 40), r"x.tif: a stack of one slice \(1, 40, 40\); save image and labels as planes"),
    ],
)
def test_images_too_small_to_hold_a_cell(tmp_path, shape, words):
    image = np.random.default_rng(0).integers(100, 200, shape).astype(np.uint16)
    labels = np.zeros(shape, np.uint16)
    labels[..., : shape[-1] // 2] = 1
    source = write_pairs(tmp_path / "set", x=image, x_masks=labels)
    (source / "dataset.json").write_text('{"spacing_um": [1, 1, 1]}')
    both_say(source, words)


def test_label_files_that_were_swapped(tmp_path):
    source = write_ctc_2d(tmp_path / "set", 6)
    first, second = (source / f"01_GT/SEG/man_seg{n:03d}.tif" for n in (1, 4))
    first.rename(tmp_path / "aside.tif")
    second.rename(first)
    (tmp_path / "aside.tif").rename(second)
    both_say(
        source, r"man_seg001.tif: these labels fit .*t004.tif, which has .*man_seg004.tif, and not their own image"
    )
    assert len(validate(ValidateSettings(source)).errors) == 2


def test_labels_that_do_not_lie_on_their_cells(tmp_path, caplog):
    source = write_ctc_2d(tmp_path / "set", 6)
    path = source / "01_GT/SEG/man_seg002.tif"
    tifffile.imwrite(path, tifffile.imread(path)[::-1])
    found = validate(ValidateSettings(source))
    assert found.errors == []
    (line,) = [line for line in found.warnings if "no voxel size" not in line]
    assert re.search(r"man_seg002.tif: these labels do not lie where t002.tif is bright", line)
    prepare(PrepareSettings(source, output_dir=tmp_path / "crops", crop_size=32))
    assert line in caplog.text


def test_intensities_that_would_be_lost(tmp_path):
    source = write_ctc_2d(tmp_path / "set", 1)
    path = source / "01/t000.tif"
    image = tifffile.imread(path)
    for wrong, message in (
        ((image / 65535).astype(np.float32), "intensities up to .*; save it as uint16"),
        (image.astype(np.uint32) * 1000, "intensities up to .*; save it as uint16"),
        (image.astype(np.int16) - 300, "intensities down to -[0-9]+; subtract the lowest"),
        (image.astype(np.float32) - 300.5, "intensities down to -[0-9.]+; subtract the lowest"),
        (np.full_like(image, 7), "all pixels are 7; export it again"),
    ):
        tifffile.imwrite(path, wrong)
        both_say(source, f"t000.tif: {message}")


def test_real_sets_are_called_sound(real_data):
    """Planes and slices of stacks, dense and sparse."""
    for name, sequences in (("BBBC050", ["01", "02"]), ("Fluo-N2DH-GOWT1", ["02"])):
        assert validate(ValidateSettings(real_data / name, sequences=sequences or ())).errors == []
