import json

import numpy as np
import pytest
import tifffile
from conftest import ball_stack, field_of_view, write_ctc_2d

from cascade.commands.cli import main
from cascade.data.frames import DataError, read_labels
from cascade.data.prepare import prepare
from cascade.data.settings import PrepareSettings, ThinSettings
from cascade.data.thin import thin
from cascade.data.unlabelled import with_unlabelled
from cascade.optics.statistics import Statistics


def annotated(folder):
    """{(file name, id): pixels} of everything that is annotated."""
    found = {}
    for path in sorted((folder / "01_GT" / "SEG").iterdir()):
        labels = tifffile.imread(path)
        found |= {(path.name, int(n)): int((labels == n).sum()) for n in np.unique(labels)[1:]}
    return found


def test_so_many_cells_remain_and_are_what_they_were(ctc_2d, tmp_path):
    thin(ThinSettings(ctc_2d, output_dir=tmp_path / "five", cells=5, seed=3))
    before, after = annotated(ctc_2d), annotated(tmp_path / "five")
    assert len(after) == 5
    assert after.items() <= before.items()
    for path in (tmp_path / "five" / "01").iterdir():
        assert path.read_bytes() == (ctc_2d / "01" / path.name).read_bytes()
    kept = json.loads((tmp_path / "five" / "thinned.json").read_text())["kept"]
    assert sum(len(frame["labels"]) for frame in kept) == 5
    thin(ThinSettings(ctc_2d, output_dir=tmp_path / "again", cells=5, seed=3))
    assert annotated(tmp_path / "again") == after
    thin(ThinSettings(ctc_2d, output_dir=tmp_path / "other", cells=5, seed=4))
    assert annotated(tmp_path / "other") != after


def test_so_many_slices_remain(ctc_sparse_3d, tmp_path):
    assert main(["thin", str(ctc_sparse_3d), "--frames", "2", "--output_dir", str(tmp_path / "two")]) == 0
    names = {path.name for path in (tmp_path / "two" / "01_GT" / "SEG").iterdir()}
    assert len(names) == 2
    after = annotated(tmp_path / "two")
    assert after == {key: size for key, size in annotated(ctc_sparse_3d).items() if key[0] in names}


def test_cells_are_kept_of_slices_but_not_of_whole_stacks(ctc_sparse_3d, tmp_path):
    thin(ThinSettings(ctc_sparse_3d, output_dir=tmp_path / "two", cells=2))
    assert len(annotated(tmp_path / "two")) == 2
    (tmp_path / "set").mkdir()
    for name, array in zip(("x.tif", "x_masks.tif"), ball_stack(np.random.default_rng(0)), strict=True):
        tifffile.imwrite(tmp_path / "set" / name, array)
    with pytest.raises(DataError, match=r"x_masks.tif: a whole stack.*give frames"):
        thin(ThinSettings(tmp_path / "set", output_dir=tmp_path / "out", cells=1))
    assert not (tmp_path / "out").exists()
    thin(ThinSettings(tmp_path / "set", output_dir=tmp_path / "out", frames=1))


def test_of_a_cell_in_two_pieces_the_larger_remains(tmp_path):
    image, labels = field_of_view(np.random.default_rng(0))
    labels[:] = 0
    labels[20:30, 20:30], labels[100:108, 100:108] = 5, 5
    (tmp_path / "set").mkdir()
    tifffile.imwrite(tmp_path / "set" / "x.tif", image)
    labels[60:70, 60:70] = 9
    tifffile.imwrite(tmp_path / "set" / "x_masks.tif", labels)
    for seed in range(8):
        out = thin(ThinSettings(tmp_path / "set", output_dir=tmp_path / f"out{seed}", cells=1, seed=seed))
        found = read_labels(out / "x_masks.tif")  # which takes one id in two pieces for a binary mask
        assert found.dtype == labels.dtype
        assert [int((found == n).sum()) for n in np.unique(found)[1:]] == [100]


def test_what_cannot_be_thinned_is_refused(ctc_2d, tmp_path):
    with pytest.raises(ValueError, match="one of them"):
        thin(ThinSettings(ctc_2d, output_dir=tmp_path / "out"))
    with pytest.raises(DataError, match="no border cuts, not 1000"):
        thin(ThinSettings(ctc_2d, output_dir=tmp_path / "out", cells=1000))
    with pytest.raises(DataError, match="has 3 annotated frames, not 4"):
        thin(ThinSettings(ctc_2d, output_dir=tmp_path / "out", frames=4))
    assert not (tmp_path / "out").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(FileExistsError, match="not empty"):
        thin(ThinSettings(ctc_2d, output_dir=tmp_path / "full", cells=1))


def test_cells_that_nobody_annotated_are_found():
    image, truth = field_of_view(np.random.default_rng(2), (220, 220), 20)
    labels = np.where(truth == 7, truth, 0)
    found = with_unlabelled(image, labels)
    np.testing.assert_array_equal(found[labels > 0], labels[labels > 0])
    assert len(np.unique(found)) - 1 == pytest.approx(20, abs=2)
    best = []
    for n in range(1, 21):
        own = truth == n
        other = np.bincount(found[own])[1:].argmax() + 1 if found[own].any() else -1
        best.append((own & (found == other)).sum() / (own | (found == other)).sum())
    assert np.median(best) > 0.8
    with pytest.raises(ValueError, match="no cell is annotated"):
        with_unlabelled(image, np.zeros_like(labels))


def test_statistics_of_few_annotations_are_nearly_those_of_all(tmp_path):
    """A user who annotates eight of 48 cells gets crops of eight, and a population of 48."""
    write_ctc_2d(tmp_path / "all", 4)
    thin(ThinSettings(tmp_path / "all", output_dir=tmp_path / "few", cells=8))
    folders = {}
    for name, sparse in (("all", False), ("few", True)):
        options = dict(crop_size=32, spacing_um=[0.5, 0.5], sparse=sparse)
        folders[name] = Statistics.load(
            prepare(PrepareSettings(tmp_path / name, output_dir=tmp_path / f"{name}_crops", **options))
        )
    everything, few = folders["all"], folders["few"]
    assert len(few.cell_area_um2) == 8
    assert np.mean(few.cells_per_image) == pytest.approx(np.mean(everything.cells_per_image), rel=0.1)
    assert few.background.level == pytest.approx(everything.background.level, rel=0.02)
    assert few.clustering_probability == pytest.approx(everything.clustering_probability, abs=0.2)
    np.testing.assert_allclose(few.halo.profile[:2], everything.halo.profile[:2], atol=0.06)
