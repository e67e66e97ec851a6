"""Annotations and their records: what they refuse, and that nothing is lost on the way through a file."""

from dataclasses import fields, replace

import numpy as np
import pytest
from skimage import measure

from cascade.annotation import Annotation, CellRecord, Sample
from cascade.export.annotations import load_annotation, save_annotation


def labels(ndim: int) -> np.ndarray:
    """Three cells with gaps between their ids."""
    plane = np.zeros((20, 24), np.uint16)
    plane[2:7, 3:9], plane[9:15, 4:8], plane[10:18, 12:22] = 3, 5, 60_000
    return plane if ndim == 2 else np.stack([plane * 0, plane, plane, plane * 0])


@pytest.mark.parametrize(("ndim", "spacing"), [(2, (0.5, 0.25)), (3, (2.0, 0.5, 0.25))])
def test_records_of_labels_are_what_skimage_measures(ndim, spacing):
    annotation = Annotation.of_labels(labels(ndim), spacing)
    regions = measure.regionprops(labels(ndim), spacing=spacing)
    assert [cell.label for cell in annotation.cells] == [region.label for region in regions]
    for cell, region in zip(annotation.cells, regions, strict=True):
        np.testing.assert_allclose(cell.centroid_um, region.centroid, rtol=1e-12)
        assert cell.size == pytest.approx(region.area)
    assert annotation.split_ids() == []


def test_an_id_in_pieces_is_found():
    split = labels(2)
    split[0, 0] = 5
    assert Annotation.of_labels(split, (1.0, 1.0)).split_ids() == [5]


@pytest.mark.parametrize("ndim", [2, 3])
def test_an_annotation_comes_back_from_its_file_without_loss(ndim, tmp_path):
    """Every field that can be stored is set to something that is not its default."""
    stored = {
        "centroid_um": (0.1, 1 / 3, 2e-9)[-ndim:], "size": np.pi, "parent": 7, "origin_um": (-1.5, 0.3, 1e9)[-ndim:],
        "brightness": 812.7, "outline": np.eye(5, dtype=bool), "outline_pixel_um": 0.17, "residual": 0.03,
        "alignment": 0.91, "bank": 0, "symmetry": 5, "nucleoli": ((0.1, 1 / 3, 0.7), (2.0, 3.0, 0.5)),
    }  # fmt: skip
    assert set(stored) == {one.name for one in fields(CellRecord)} - {"label", "solid"}
    cells = (CellRecord(label=3, **stored), CellRecord(label=5), CellRecord(label=60_000, bank=2))
    spacing, foreground = (2.0, 0.1 + 0.2, 1 / 3)[-ndim:], labels(ndim) == 5
    annotation = Annotation(labels(ndim), spacing, cells, foreground, time=4, counts={"not_placed": 2})
    save_annotation(annotation, tmp_path / "a" / "one.safetensors")
    back = load_annotation(tmp_path / "a" / "one.safetensors")
    assert (back.spacing_um, back.time, back.counts) == (spacing, 4, {"not_placed": 2})
    for name in ("labels", "foreground"):
        assert getattr(back, name).dtype == getattr(annotation, name).dtype
        np.testing.assert_array_equal(getattr(back, name), getattr(annotation, name))
    np.testing.assert_array_equal(back.cells[0].outline, stored["outline"])
    for before, after in zip(cells, back.cells, strict=True):
        assert replace(after, outline=None).row(ndim) == replace(before, outline=None).row(ndim)
        assert {f.name: getattr(after, f.name) for f in fields(after) if f.name != "outline"} == {
            f.name: getattr(before, f.name) for f in fields(before) if f.name != "outline"
        }
    assert back.cells[1].outline is None


def test_a_file_that_is_none_is_named(tmp_path):
    path = tmp_path / "one.safetensors"
    for content in (b"", b"garbage", b"\x08\0\0\0\0\0\0\0{}      "):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"one.safetensors: holds no annotation"):
            load_annotation(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": labels(2).astype(float)}, "unsigned integers, got float64"),
        ({"spacing_um": (1.0,)}, "spacing_um must be 2 lengths above 0"),
        ({"spacing_um": (1.0, 0.0)}, "spacing_um must be 2 lengths above 0"),
        ({"spacing_um": (1.0, float("nan"))}, "spacing_um must be 2 lengths above 0"),
        ({"cells": ()}, r"one record for each id of the labels, in order; see \[3, 5, 60000\]"),
        ({"cells": tuple(CellRecord(label=n) for n in (5, 3, 60_000))}, "in order"),
        ({"foreground": np.ones((2, 2), bool)}, "foreground has shape"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    good = Annotation.of_labels(labels(2), (1.0, 1.0))
    with pytest.raises(ValueError, match=message):
        replace(good, **changes)
    with pytest.raises(ValueError, match="the image has shape"):
        Sample(np.zeros((3, 3), np.uint16), good)


def test_huge_ids_cost_nothing():
    """Ids such as a tracker's: a table up to the highest would take gigabytes."""
    wide = labels(2).astype(np.uint32)
    wide[wide == 60_000] = 4_000_000_000
    assert [cell.label for cell in Annotation.of_labels(wide, (1.0, 1.0)).cells] == [3, 5, 4_000_000_000]
