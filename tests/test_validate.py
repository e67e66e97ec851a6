import numpy as np
import pytest
import tifffile
from conftest import write_ctc_2d

from cascade.commands.cli import main
from cascade.data.frames import DataError
from cascade.data.prepare import prepare
from cascade.data.settings import PrepareSettings, ValidateSettings
from cascade.data.validate import validate


def test_a_sound_set_is_called_sound(tmp_path, capsys):
    folder = write_ctc_2d(tmp_path / "set")
    (folder / "dataset.json").write_text('{"spacing_um": [0.5, 0.5]}')
    found = validate(ValidateSettings(folder))
    assert found.errors == found.warnings == []
    assert found.frames == 3
    assert found.spacing_um == (0.5, 0.5)
    assert main(["validate", str(folder)]) == 0
    assert f"{found.num_cells} cells" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spoil", "kind", "words"),
    [
        (lambda m: np.where(m == 2, 1, m), "warnings", "ids in several pieces: 1; prepare keeps the largest"),
        (lambda m: m[:-3], "errors", "does not fit"),
        (lambda m: m.astype(np.float32), "errors", "save unsigned integers"),
        (lambda m: m.astype(np.int16) - 1, "errors", "ids down to -1"),
        (lambda m: (m > 0) * (1 + m % 2).astype(np.uint8), "errors", "ids 1, 2 lie in many pieces each, as classes do"),
        (lambda m: m * 0, "warnings", "an empty frame"),
    ],
)
def test_mistakes_are_named(tmp_path, capsys, spoil, kind, words):
    folder = write_ctc_2d(tmp_path / "set")
    path = folder / "01_GT/SEG/man_seg001.tif"
    tifffile.imwrite(path, spoil(tifffile.imread(path)))
    found = validate(ValidateSettings(folder))
    (line,) = [line for line in getattr(found, kind) if "no voxel size" not in line]
    assert words in line
    assert str(path) in line
    assert main(["validate", str(folder)]) == (1 if kind == "errors" else 0)
    assert words in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda image: image.astype(np.int16) - 200, "intensities down to -"),
        (lambda image: (image / 65535).astype(np.float32), "save it as uint16"),
        (lambda image: np.stack([image] * 3), "3 channels"),
    ],
)
def test_images_that_prepare_refuses_are_wrong(tmp_path, spoil, words):
    path = write_ctc_2d(tmp_path / "set") / "01/t001.tif"
    image = spoil(tifffile.imread(path))
    tifffile.imwrite(path, image, photometric="minisblack", metadata={"axes": "CYX"[-image.ndim :]})
    (line,) = validate(ValidateSettings(tmp_path / "set")).errors
    assert f"{path}: " in line
    assert words in line
    with pytest.raises(DataError, match=words):
        prepare(PrepareSettings(tmp_path / "set", output_dir=tmp_path / "crops", crop_size=32))


def test_a_broken_record_of_the_spacing_is_wrong(tmp_path):
    folder = write_ctc_2d(tmp_path / "set")
    (folder / "dataset.json").write_text("no")
    (line,) = validate(ValidateSettings(folder)).errors
    assert "dataset.json: cannot be read" in line


def test_blank_images_and_missing_spacing_are_noticed(tmp_path):
    folder = write_ctc_2d(tmp_path / "set")
    tifffile.imwrite(folder / "01/t000.tif", np.full((160, 160), 7, np.uint16))
    tifffile.imwrite(folder / "01/t009.tif", np.full((160, 160), 7, np.uint16))
    found = validate(ValidateSettings(folder))
    assert any("all pixels are 7" in line for line in found.errors)
    assert any("no voxel size" in line for line in found.warnings)
    assert any("1 images have no labels" in line for line in found.warnings)


def test_a_first_image_that_cannot_be_read_hides_nothing(tmp_path):
    folder = write_ctc_2d(tmp_path / "set")
    (folder / "01" / "t000.tif").write_bytes(b"no picture")
    found = validate(ValidateSettings(folder, sequences=["01"]))
    assert len(found.errors) == 1
    assert "t000.tif: cannot be read" in found.errors[0]
    assert any("no voxel size" in line for line in found.warnings)
    with pytest.raises(DataError, match="no sequence 02"):
        validate(ValidateSettings(folder, sequences=["02"]))
