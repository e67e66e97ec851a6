import shutil

import numpy as np
import pytest
import tifffile
from conftest import write_ctc_2d

from cascade.data.frames import DataError
from cascade.data.prepare import prepare
from cascade.data.settings import PrepareSettings
from cascade.evaluation.settings import EvaluateSettings
from cascade.evaluation.sources import Source, sparse_sources
from cascade.evenly import evenly


def test_prepared_crops_are_a_data_set_of_single_cells(tmp_path):
    source = write_ctc_2d(tmp_path / "set", frames=2)
    prepare(PrepareSettings(source, output_dir=tmp_path / "crops", crop_size=64, spacing_um=[0.5, 0.5]))
    found = Source(tmp_path / "crops").load()
    assert {one.image.shape for one in found} == {(64, 64)}
    assert all(set(np.unique(one.labels)) == {0, 1} for one in found)
    cells = [(one.image, one.labels == n) for one in Source(source).load() for n in np.unique(one.labels)]
    for one in found:
        cell = one.labels > 0
        alike = [image[inside].mean() for image, inside in cells if inside.sum() == cell.sum()]
        assert min(abs(one.image[cell].mean() / mean - 1) for mean in alike) < 0.1
        assert one.image[~cell].mean() == pytest.approx(120, rel=0.3)  # nothing but background and the own halo
        assert one.spacing_um == (0.5, 0.5)
    some = Source(tmp_path / "crops", frames=3).load()
    for one, n in zip(some, evenly(len(found), 3), strict=True):
        np.testing.assert_array_equal(one.image, found[n].image)


def test_sources_are_read_as_they_were_asked_for(tmp_path):
    folder = write_ctc_2d(tmp_path / "set", frames=5)
    assert len(Source(folder).load()) == 5
    shutil.copytree(folder / "01", folder / "02")
    shutil.copytree(folder / "01_GT", folder / "02_GT")
    assert len(Source(folder).load()) == 10
    picked = Source(folder, sequences=("02",), frames=3).load()
    for one, n in zip(picked, (0, 2, 4), strict=True):
        np.testing.assert_array_equal(one.image, tifffile.imread(folder / "02" / f"t{n:03d}.tif"))
    with pytest.raises(ValueError, match="at least one frame"):
        Source(folder, frames=0).load()


def test_the_voxel_size_that_is_given_wins(tmp_path, caplog):
    folder = write_ctc_2d(tmp_path / "set", frames=1)
    assert Source(folder).load()[0].spacing_um == (1.0, 1.0)
    assert "taking 1 µm per pixel" in caplog.text
    caplog.clear()
    (folder / "dataset.json").write_text('{"spacing_um": [0.5, 0.25]}')
    assert Source(folder).load()[0].spacing_um == (0.5, 0.25)
    assert Source(folder, spacing_um=(0.3, 0.3)).load()[0].spacing_um == (0.3, 0.3)
    assert not caplog.text
    assert Source(folder, spacing_um=(2.0, 0.3, 0.4)).load()[0].spacing_um == (
        0.3,
        0.4,
    )  # as told of stacks beside them
    for wrong in ((0.5,), (0.5, 0.0)):
        with pytest.raises(DataError, match="needs 2 lengths above 0"):
            Source(folder, spacing_um=wrong).load()


def test_the_voxel_size_that_is_given_is_that_of_few_annotated_real_images_too(tmp_path):
    folder = write_ctc_2d(tmp_path / "few", frames=1)
    asked = EvaluateSettings(
        real_test=folder, synthetic=["made"], spacing_um=(0.5, 0.25), output_dir=tmp_path / "out",
        sparse=[f"real={folder}", f"synthetic={folder}"],
    )  # fmt: skip
    sources = sparse_sources(asked)
    assert sources["real"].load()[0].spacing_um == (0.5, 0.25)
    assert sources["synthetic"].load()[0].spacing_um == (1.0, 1.0)
