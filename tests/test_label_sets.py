"""Labels that other programs joined, wrote anew or left without a voxel size."""

import json
import time

import numpy as np
import pyarrow.parquet
import pytest
import tifffile

from cascade.annotation import Annotation, Sample
from cascade.commands.cli import main
from cascade.data.exported import rows_of
from cascade.data.images import find_images
from cascade.data.label_sets import find_labels
from cascade.data.like import like
from cascade.data.seen import look_at
from cascade.data.settings import ValidateSettings
from cascade.data.spacing import spacing_of
from cascade.data.validate import validate
from cascade.export.save import save_samples
from cascade.export.tiff import write_tiff
from cascade.reading import DataError


def squares(count, spacing_um=(0.5, 0.5), shape=(48, 48), side=6):
    """An annotation of so many squares."""
    labels = np.zeros(shape, np.uint16)
    for n in range(count):
        y, x = (2 + 2 * side * k for k in divmod(n, (shape[-1] - 2) // (2 * side)))
        labels[..., y : y + side, x : x + side] = n + 1
    return Annotation.of_labels(labels, spacing_um)


def write(folder, format, *annotations):
    return save_samples([Sample(None, one, 0, n) for n, one in enumerate(annotations)], folder, (format,))


def test_every_row_of_a_joined_table_is_an_image(tmp_path):
    """As `datasets` writes what it has loaded, or the Hub hands it out: one file, in groups of rows."""
    known = [squares(count) for count in (3, 5, 7)]
    apart = write(tmp_path / "apart", "huggingface", *known)
    tables = [pyarrow.parquet.read_table(path) for path in sorted((apart / "data").glob("*.parquet"))]
    (tmp_path / "joined" / "data").mkdir(parents=True)
    joined = tmp_path / "joined" / "data" / "train-00000-of-00001.parquet"
    pyarrow.parquet.write_table(pyarrow.concat_tables(tables), joined, row_group_size=2)
    files = find_labels(tmp_path / "joined")
    assert len(files) == rows_of(joined) == 3
    for file, one in zip(files, known, strict=True):
        assert (file.annotation()[0].labels == one.labels).all()
    assert validate(ValidateSettings(tmp_path / "joined")).num_cells == 15


def test_tables_without_labels_are_passed_over(tmp_path):
    (tmp_path / "data").mkdir()
    pyarrow.parquet.write_table(pyarrow.table({"mask": [1, 2]}), tmp_path / "data" / "train-00000-of-00001.parquet")
    with pytest.raises(DataError, match="no annotated images"):
        find_labels(tmp_path)


def test_a_coco_file_that_is_written_anew_is_read_anew(tmp_path):
    folder = write(tmp_path / "set", "coco", squares(3), squares(5))
    assert [len(file.annotation()[0].cells) for file in find_labels(folder)] == [3, 5]
    write(folder, "coco", squares(7))
    assert [len(file.annotation()[0].cells) for file in find_labels(folder)] == [7]


def test_coco_of_many_cells_is_written_and_read_in_a_moment(tmp_path):
    """Once it took a pass over the whole image for each cell: of these 10,000 half an hour."""
    one, begun = squares(10_000, shape=(2002, 2002), side=10), time.monotonic()
    (file,) = find_labels(write(tmp_path, "coco", one))
    assert (file.annotation()[0].labels == one.labels).all()
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"counts": "PQ1"}, "compressed run lengths"),
        ({"counts": [3, 1]}, "another size than images/sample_000000.png"),
        ({"size": [9, 9]}, "another size than images/sample_000000.png"),
    ],
)
def test_run_lengths_of_other_kinds_are_named(changed, said, tmp_path):
    folder = write(tmp_path / "set", "coco", squares(1))
    known = json.loads((folder / "annotations.json").read_text())
    known["annotations"][0]["segmentation"] |= changed
    (folder / "annotations.json").write_text(json.dumps(known))
    with pytest.raises(DataError, match=rf"annotations\.json: .*{said}"):
        find_labels(folder)[0].annotation()


def test_coco_without_a_voxel_size_takes_the_given_one(tmp_path):
    folder = write(tmp_path / "set", "coco", squares(2))
    known = json.loads((folder / "annotations.json").read_text())
    del known["info"]["spacing_um"]
    (folder / "annotations.json").write_text(json.dumps(known))
    (file,) = find_labels(folder)
    assert (file.annotation()[0].spacing_um, file.annotation()[1]) == ((1.0, 1.0), "assumed")
    assert any("no voxel size stored" in line for line in validate(ValidateSettings(folder)).warnings)
    words = [
        "simulate",
        "labels",
        "--source",
        str(folder),
        "--spacing_um",
        "0.3",
        "0.3",
        "--output_dir",
        str(tmp_path / "out"),
    ]
    assert main(words) == 0
    assert find_labels(tmp_path / "out")[0].annotation()[0].spacing_um == (0.3, 0.3)


@pytest.mark.parametrize("format", ["annotations", "huggingface", "coco", "ome-zarr"])
def test_a_given_voxel_size_that_is_not_the_stored_one_is_refused(format, tmp_path):
    """It was passed over without a word."""
    (file,) = find_labels(write(tmp_path / "set", format, squares(2)))
    assert file.annotation((0.5, 0.5))[0].spacing_um == (0.5, 0.5)
    with pytest.raises(DataError, match=rf"{file.path.name}: its voxels are of 0\.5 × 0\.5 µm.*leave spacing_um out"):
        file.annotation((0.3, 0.3))


def test_annotations_of_several_voxel_sizes_are_not_measured_together(tmp_path):
    """Sizes of all of them were read in pixels of the last."""
    folder = write(tmp_path / "sizes", "annotations", squares(5), squares(5, (0.7, 0.7)))
    with pytest.raises(DataError, match=r"sample_000001.*: voxels of 0.7 × 0.7 µm.*measure them apart"):
        look_at(folder)
    folder = write(tmp_path / "axes", "annotations", squares(5), squares(5, (1, 1, 1), (4, 48, 48)))
    with pytest.raises(DataError, match=r"sample_000001.*: another number of axes"):
        look_at(folder)


def test_the_first_image_that_says_its_voxel_size_says_that_of_all(tmp_path):
    one = squares(9)
    image = (100 + 300 * (one.labels > 0)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", image)  # as Python's libraries write it, without
    write_tiff(tmp_path / "b.tif", image, (0.5, 0.5))
    for name in "ab":
        tifffile.imwrite(tmp_path / f"{name}_masks.tif", one.labels)
    frames = [file.frame for file in find_labels(tmp_path)]
    assert spacing_of(tmp_path, frames, 2) == ((0.5, 0.5), "TIFF metadata")
    assert validate(ValidateSettings(tmp_path)).spacing_um == (0.5, 0.5)
    assert look_at(tmp_path).spacing_um == (0.5, 0.5)


def test_raw_images_without_a_cell_are_measured_beside_others(tmp_path):
    """They ended in a traceback."""
    rng, y, x = np.random.default_rng(0), *np.indices((160, 160)) % 40
    cells = (y - 20) ** 2 + (x - 20) ** 2 < 81
    for name, light in (("a", 400 * cells), ("b", 0 * y)):
        tifffile.imwrite(tmp_path / f"{name}.tif", rng.poisson(100 + light).astype(np.uint16))
    assert like(tmp_path).measures.cells_per_image.tolist() == [16, 0]


def test_labels_of_more_than_16_bits_have_their_pixel_size_in_centimetres(tmp_path):
    """They had it in pixels an inch."""
    write_tiff(tmp_path / "x.tif", np.full((8, 8), 70_000, np.uint32), (0.5, 0.25))
    with tifffile.TiffFile(tmp_path / "x.tif") as tiff:
        tags = {name: tiff.pages.first.tags[name].value for name in ("XResolution", "YResolution", "ResolutionUnit")}
    assert tags == {"XResolution": (40_000, 1), "YResolution": (20_000, 1), "ResolutionUnit": 3}


def test_a_sequence_that_is_not_there_is_missed(tmp_path):
    """One of two was left out without a word."""
    for sequence in ("01", "02"):
        (tmp_path / f"{sequence}_GT" / "SEG").mkdir(parents=True)
        write_tiff(tmp_path / f"{sequence}_GT" / "SEG" / "man_seg000.tif", squares(3).labels, (0.5, 0.5))
    assert len(find_labels(tmp_path, sequences=("01", "02"))) == 2
    with pytest.raises(DataError, match="no sequence 07; there are 01, 02"):
        find_labels(tmp_path, sequences=("01", "07"))


def test_masks_of_other_names_are_no_raw_images(tmp_path, caplog):
    """They were learned from as images."""
    names = ("a", "a_mask", "b", "b_Labels", "c_seg", "d.ome", "d_gt")
    for name in names:
        tifffile.imwrite(tmp_path / f"{name}.tif", squares(3).labels)
    (found,) = find_images(tmp_path)
    assert [path.name for path in found] == ["a.tif", "b.tif", "c_seg.tif", "d.ome.tif"]
    assert "a_mask.tif and 2 more: taken for labels by the name, and passed over" in caplog.text
