import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from conftest import ball_stack, field_of_view, glass_stack, write_ctc_2d

from cascade.commands.cli import main
from cascade.data.crowding import _soft_ellipsoid, clustering_of_stacks
from cascade.data.dataset import CropDataset, crop_size_of
from cascade.data.frames import DataError
from cascade.data.prepare import prepare
from cascade.data.settings import PrepareSettings, ValidateSettings
from cascade.data.validate import validate
from cascade.diffusion.encoders import random_symmetry
from cascade.optics.axial import Axial
from cascade.optics.statistics import Statistics
from cascade.population.compositing import compose
from cascade.population.placement import place
from cascade.population.room import Room


@pytest.fixture(scope="module")
def crops(ctc_2d, tmp_path_factory):
    return prepare(
        PrepareSettings(
            ctc_2d, output_dir=tmp_path_factory.mktemp("crops") / "planes", crop_size=32, spacing_um=[0.5, 0.5]
        )
    )


def test_hugging_face_loads_the_crops(crops, tmp_path):
    import datasets

    table = datasets.load_dataset(str(crops), cache_dir=tmp_path)["train"].with_format("numpy")
    assert set(table.column_names) >= {"image", "mask", "brightness", "area_um2", "pixel_size_um", "source", "z"}
    row = table[0]
    assert row["image"].shape == row["mask"].shape == (32, 32)
    assert row["area_um2"] == pytest.approx(row["mask"].sum() * 0.25, rel=0.02)
    assert row["brightness"] == pytest.approx(row["image"][row["mask"] > 0].mean(), rel=0.02)
    assert (crops / "preview.png").is_file()


def test_the_statistics_are_those_of_the_images(crops, ctc_2d):
    statistics = Statistics.load(crops)
    labels = [tifffile.imread(p) for p in sorted((ctc_2d / "01_GT/SEG").iterdir())]
    assert statistics.cells_per_image == [len(np.unique(m)) - 1 for m in labels]
    assert statistics.background.level == pytest.approx(120, abs=6)
    assert statistics.noise.gain == pytest.approx(1.0, rel=0.35)  # photons
    assert statistics.spacing_um == (0.5, 0.5)
    assert statistics.region_um is None
    assert 0 <= statistics.clustering_probability <= 0.4  # cells kept their distance
    assert statistics.window.low < 120 < 1000 < statistics.window.high
    assert Statistics.from_dict(json.loads(json.dumps(statistics.to_dict()))) == statistics


def test_single_slices_of_stacks_are_read(ctc_sparse_3d, tmp_path):
    folder = prepare(
        PrepareSettings(
            ctc_sparse_3d, output_dir=tmp_path / "crops", crop_size=32, spacing_um=[2, 1, 1], pixel_size_um=0.5 * 2
        )
    )
    statistics = Statistics.load(folder)
    assert statistics.ndim == 3
    assert statistics.axial.elongation[0] == pytest.approx(2.0, rel=0.25)
    assert np.mean(statistics.cells_per_image) == pytest.approx(8, rel=0.4)
    dataset = CropDataset(str(folder))
    assert (dataset.columns["relative_height"].abs() > 0.1).any()
    middle = CropDataset(str(folder), max_relative_height=0.5)
    assert 0 < len(middle) < len(dataset)


def test_whole_stacks_give_slices_of_every_cell(tmp_path):
    rng = np.random.default_rng(5)
    for part in ("01", "01_ST/SEG"):
        (tmp_path / "S" / part).mkdir(parents=True)
    for n in range(2):
        image, labels = ball_stack(rng)
        tifffile.imwrite(tmp_path / f"S/01/t{n:03d}.tif", image)
        tifffile.imwrite(tmp_path / f"S/01_ST/SEG/man_seg{n:03d}.tif", labels)
    folder = prepare(
        PrepareSettings(
            tmp_path / "S", output_dir=tmp_path / "c", truth="st", crop_size=32, spacing_um=[2, 1, 1], slices_per_cell=2
        )
    )
    statistics = Statistics.load(folder)
    assert statistics.cells_per_image == [8, 8]
    assert statistics.axial.elongation[0] == pytest.approx(2.0, rel=0.15)
    assert 24 <= len(CropDataset(str(folder))) <= 32


def test_pairs_without_a_voxel_size_say_so(tmp_path, caplog):
    image, labels = field_of_view(np.random.default_rng(0))
    (tmp_path / "pairs").mkdir()
    tifffile.imwrite(tmp_path / "pairs/x.tif", image)
    tifffile.imwrite(tmp_path / "pairs/x_masks.tif", labels)
    tifffile.imwrite(tmp_path / "pairs/y.tif", image)
    tifffile.imwrite(tmp_path / "pairs/e.tif", image)
    tifffile.imwrite(tmp_path / "pairs/e_masks.tif", labels * 0)
    prepare(PrepareSettings(tmp_path / "pairs", output_dir=tmp_path / "crops", crop_size=32))
    assert "taking 1 µm per pixel" in caplog.text
    assert "1 images without annotation" in caplog.text
    assert "1 empty frames" in caplog.text
    assert "empty frames" in (tmp_path / "crops/README.md").read_text()


def test_a_failing_run_leaves_nothing_and_keeps_what_was_there(tmp_path, capsys):
    source = write_ctc_2d(tmp_path / "data", frames=1)
    crops = tmp_path / "crops"
    assert (
        main(["prepare", str(source), "--output_dir", str(crops), "--crop_size", "32", "--spacing_um", "1", "1"]) == 0
    )
    before = (crops / "statistics.json").read_bytes()
    assert (
        main(["prepare", str(source), "--output_dir", str(crops), "--crop_size", "32", "--pixel_size_um", "0.2"]) == 1
    )
    assert "cells are larger than a 32 px crop" in capsys.readouterr().err
    assert (crops / "statistics.json").read_bytes() == before
    assert not crops.with_name("crops.partial").exists()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    assert main(["prepare", str(source), "--output_dir", str(tmp_path / "thesis")]) == 1
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "years of work"


def test_mistakes_end_with_one_line(tmp_path, capsys):
    assert main(["prepare", str(tmp_path / "nowhere"), "--output_dir", str(tmp_path / "c")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "nowhere: no such folder" in error
    source = write_ctc_2d(tmp_path / "data", frames=1)
    assert main(["prepare", str(source), "--output_dir", str(tmp_path / "c"), "--spacing_um", "1", "1", "1"]) == 1
    assert "needs 2 lengths" in capsys.readouterr().err
    for path in (source / "01_GT/SEG").iterdir():
        tifffile.imwrite(path, tifffile.imread(path) * 0)
    assert main(["prepare", str(source), "--output_dir", str(tmp_path / "c")]) == 1
    assert "every annotated frame is empty" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_batches_are_tensors_in_range(crops):
    dataset = CropDataset([str(crops)])
    batch = dataset[[0, 3, 5]]
    assert batch["image"].shape == batch["mask"].shape == (3, 1, 32, 32)
    assert -1 <= batch["image"].min() < batch["image"].max() <= 1
    inside = (batch["image"] * batch["mask"]).sum((1, 2, 3)) / batch["mask"].sum((1, 2, 3))
    np.testing.assert_allclose(inside / 2 + 0.5, batch["brightness"], atol=0.03)


def test_small_data_sets_are_repeated_and_sizes_must_agree(crops, ctc_2d, tmp_path):
    other = prepare(PrepareSettings(ctc_2d, output_dir=tmp_path / "other", crop_size=64, spacing_um=[0.5, 0.5]))
    with pytest.raises(DataError, match="different sizes"):
        CropDataset([str(crops), str(other)])
    assert len(CropDataset([str(crops), str(crops)])) == 2 * len(CropDataset([str(crops)]))
    how = dict(crop_size=32, spacing_um=[0.5, 0.5], pixel_size_um=1.25)
    coarse = prepare(PrepareSettings(ctc_2d, output_dir=tmp_path / "coarse", **how))
    with pytest.raises(DataError, match=r"crops of 0\.5, 1\.25 µm per pixel: prepare them with one --pixel_size_um"):
        CropDataset([str(crops), str(coarse)])
    assert len(CropDataset([str(crops), str(coarse)], any_pixel_size=True)) > len(CropDataset([str(crops)]))
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "statistics.json").write_text((crops / "statistics.json").read_text())
    with pytest.raises(DataError, match="holds no crops"):
        CropDataset([str(tmp_path / "none")])


def test_crops_that_do_not_fit_their_statistics_are_named(crops, tmp_path):
    import datasets

    def spoilt(name, change):
        shutil.copytree(crops, tmp_path / name)
        (file,) = (tmp_path / name / "data").glob("*.parquet")
        rows = datasets.Dataset.from_parquet(str(file), cache_dir=str(tmp_path / "cache"))
        rows.map(change, with_indices=True, keep_in_memory=True).to_parquet(file)
        return str(tmp_path / name)

    def unmask(row, n):
        return {**row, "mask": (np.array(row["mask"]) * (n != 3)).tolist()}

    def overexpose(row, n):
        return {**row, "image": np.maximum(np.array(row["image"]), 65535 * (n >= 2)).tolist()}

    CropDataset(spoilt("sound", lambda row, n: row))
    with pytest.raises(DataError, match=r"crops \[3\] have no mask"):
        CropDataset(spoilt("unmasked", unmask))
    with pytest.raises(DataError, match=r"crops \[2, 3, 4, 5, 6\] are brighter than the window"):
        CropDataset(spoilt("overexposed", overexpose))


def test_symmetries_are_the_eight_of_the_square():
    import torch

    tile = torch.arange(9.0).view(1, 1, 3, 3).expand(400, -1, -1, -1)
    turned = random_symmetry(tile, torch.Generator().manual_seed(0))
    kinds = {tuple(t.flatten().tolist()) for t in turned}
    assert len(kinds) == 8
    assert all(kind[4] == 4 and sum(kind) == 36 for kind in kinds)


def test_real_nuclei_are_prepared(real_data, tmp_path):
    folder = prepare(
        PrepareSettings(
            real_data / "BBBC050", output_dir=tmp_path / "c", sequences=["01", "02"], crop_size=64, pixel_size_um=0.4
        )
    )
    statistics = Statistics.load(folder)
    assert statistics.spacing_um == (1.75, 0.8, 0.8)
    assert 1.4 < statistics.axial.elongation[0] < 2.6
    assert len(CropDataset(str(folder))) > 80


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(crop_size=100), "crop_size must be a multiple of 16, at least 32, got 100"),
        (dict(crop_size=16), "crop_size must be a multiple of 16, at least 32, got 16"),
        (dict(crop_size=32, pixel_size_um=0.0), "pixel_size_um must be a length above 0, in µm, got 0"),
        (dict(crop_size=32, pixel_size_um=float("nan")), "pixel_size_um must be a length above 0, in µm, got nan"),
        (dict(crop_size=32, spacing_um=[1, float("inf")]), "lengths above 0 in µm, got 1.0 inf"),
        (dict(crop_size=32, pixel_size_um=160.0, spacing_um=[0.5, 0.5]), "cells are .* pixels wide at 160 µm"),
    ],
)
def test_sizes_that_cannot_be_are_refused(ctc_2d, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        prepare(PrepareSettings(ctc_2d, output_dir=tmp_path / "crops", **options))
    assert not (tmp_path / "crops").exists()


def test_that_many_cells_are_too_large_is_an_error_that_says_what_fits(tmp_path, caplog):
    write_ctc_2d(tmp_path / "S")
    options = dict(crop_size=32, spacing_um=[0.5, 0.5])
    with pytest.raises(DataError, match=r"of .* cells are larger than a 32 px crop at 0.3 µm") as error:
        prepare(PrepareSettings(tmp_path / "S", output_dir=tmp_path / "crops", pixel_size_um=0.3, **options))
    pixel, size = re.search(r"pixel_size_um ([0-9.]+), or with crop_size ([0-9]+)$", str(error.value)).groups()
    for mended in (dict(options, pixel_size_um=float(pixel)), dict(options, pixel_size_um=0.3, crop_size=int(size))):
        prepare(PrepareSettings(tmp_path / "S", output_dir=tmp_path / "crops", **mended))
    assert set(re.findall("([0-9]+) cells larger than the crop", caplog.text)) <= {"1"}


def test_sizes_that_are_not_given_are_chosen_so_that_nearly_all_cells_fit(tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "S").mkdir()
    for n in range(2):  # cells of 12 to 22 pixels, times five
        image, labels = field_of_view(np.random.default_rng(n), (72, 72), 4)
        image, labels = (one.repeat(5, 0).repeat(5, 1) for one in (image, labels))
        tifffile.imwrite(tmp_path / "S" / f"{n}.tif", np.random.default_rng(n).poisson(image).astype(np.uint16))
        tifffile.imwrite(tmp_path / "S" / f"{n}_masks.tif", labels)
    for given, wanted in (
        (dict(), r"crops of 64 pixels, at 1\.\d+ µm per pixel"),
        (dict(pixel_size_um=1.0), r"crops of (80|96|112|128) pixels, at 1 µm per pixel"),
    ):
        caplog.clear()
        settings = PrepareSettings(tmp_path / "S", output_dir=tmp_path / "crops", spacing_um=(1.0, 1.0), **given)
        folder = prepare(settings)
        said = re.search(wanted + r": (?P<fit>\d+) of (?P<all>\d+) cells fit", caplog.text)
        assert int(said["fit"]) >= 0.9 * int(said["all"]) > 2, given
        assert crop_size_of(folder) == int(re.search(r"crops of (\d+)", caplog.text)[1])
    with pytest.raises(
        DataError, match=r"larger than a 64 px crop at 0\.1 µm per pixel; nearly all fit with pixel_size"
    ):
        prepare(replace(settings, pixel_size_um=0.1))


def test_where_every_cell_is_cut_it_says_so(tmp_path):
    image, labels = field_of_view(np.random.default_rng(0))
    y, x = np.argwhere(labels == 1)[0]
    for name, array in (("x.tif", image), ("x_masks.tif", np.where(labels == 1, labels, 0))):
        tifffile.imwrite(tmp_path / name, array[y + 3 :, x:])
    with pytest.raises(DataError, match="no cell can be cut out: 1 cells cut by the border; annotate whole cells"):
        prepare(PrepareSettings(tmp_path, output_dir=tmp_path / "crops", crop_size=32))


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({}, "no voxel size; give spacing_um Z Y X"),
        (
            dict(imagej=True, resolution=(2.0, 4.0), metadata={"axes": "ZYX", "unit": "um"}),
            "its y and x are of 0.25 0.5 µm, but it has no z step; give spacing_um Z 0.25 0.5",
        ),
        (
            dict(ome=True, metadata={"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25}),
            "its y and x are of 0.25 0.5 µm, but it has no z step; give spacing_um Z 0.25 0.5",
        ),
    ],
)
def test_stacks_need_a_voxel_size(tmp_path, stored, message):
    image, labels = ball_stack(np.random.default_rng(0))
    tifffile.imwrite(tmp_path / "x.tif", image, **stored)
    tifffile.imwrite(tmp_path / "x_masks.tif", labels)
    with pytest.raises(DataError, match=f"x.tif: {message}, in µm"):
        prepare(PrepareSettings(tmp_path, output_dir=tmp_path / "crops", crop_size=32))
    assert any("prepare spacing_um Z Y X" in line for line in validate(ValidateSettings(tmp_path)).warnings)


def test_a_trained_stage_is_no_folder_of_crops(ctc_2d, tmp_path):
    """Training leaves the statistics beside its weights."""
    (tmp_path / "texture").mkdir()
    for name in ("statistics.json", "model_index.json"):
        (tmp_path / "texture" / name).write_text("{}")
    with pytest.raises(DataError, match="holds something else than crops"):
        prepare(PrepareSettings(ctc_2d, output_dir=tmp_path / "texture", crop_size=32))


def test_whole_stacks_are_not_sparse(tmp_path):
    for part in ("01", "01_GT/SEG"):
        (tmp_path / "S" / part).mkdir(parents=True)
    image, labels = ball_stack(np.random.default_rng(0))
    tifffile.imwrite(tmp_path / "S" / "01" / "t000.tif", image)
    tifffile.imwrite(tmp_path / "S" / "01_GT" / "SEG" / "man_seg000.tif", labels)
    with pytest.raises(DataError, match="sparse is for planes"):
        prepare(
            PrepareSettings(
                tmp_path / "S", output_dir=tmp_path / "crops", crop_size=32, spacing_um=[2, 1, 1], sparse=True
            )
        )


@pytest.mark.parametrize("truth", [0.0, 1.0])
def test_the_clustering_of_stacks_is_found_in_their_slices(truth):
    """Stacks of ellipsoids put next to each other, or anywhere: single slices tell which."""
    shape, spacing, rng = (30, 90, 90), (2.0, 1.0, 1.0), np.random.default_rng(0)
    axial = Axial((2.0, 0.1), [0.0, 1.0], [1.0, 0.5], diameter_um=10.0, section=0.95)
    frames, planes = [], []
    for _ in range(20):
        cells = [_soft_ellipsoid(2 * d, d, spacing) for d in rng.uniform(8, 12, 14)]
        labels = compose(cells, place([cell.mask for cell in cells], shape, truth, rng), shape)[1]
        frames.append(SimpleNamespace(z=15, labels=lambda plane=labels[15]: plane))
        planes.append(SimpleNamespace(labels=labels[15]))
    fitted = clustering_of_stacks(
        [SimpleNamespace(frames=frames)],
        planes,
        [14] * 20,
        axial,
        shape,
        spacing,
        lambda frame: Room(),
        1.0,
        np.random.default_rng(1),
    )
    assert len(fitted) == 20
    assert abs(np.mean(fitted) - truth) < 0.35


@pytest.mark.parametrize("whole", [True, False])
def test_cells_on_glass_are_said_to_lie_in_one_layer(whole, tmp_path):
    rng, truth = np.random.default_rng(0), []
    for part in ("01", "01_GT/SEG"):
        (tmp_path / "S" / part).mkdir(parents=True)
    for n in range(4):
        image, labels, middles = glass_stack(rng)
        tifffile.imwrite(tmp_path / "S" / "01" / f"t{n:03d}.tif", image)
        name = f"man_seg{n:03d}.tif" if whole else f"man_seg_{n:03d}_002.tif"
        tifffile.imwrite(tmp_path / "S" / "01_GT" / "SEG" / name, labels if whole else labels[2])
        truth += [1.5 + 0.5 * m for m in middles] if whole else middles  # whole labels: their boxes'
    out = tmp_path / "crops"
    prepare(PrepareSettings(tmp_path / "S", output_dir=out, crop_size=32, pixel_size_um=1, spacing_um=[1, 0.5, 0.5]))
    found = Statistics.load(out)
    assert found.middles_um == pytest.approx(sorted(truth), abs=0.6)
    assert "4.0 cells per image in one layer" in (out / "README.md").read_text()


def test_numbers_of_cells_are_those_of_images_of_the_typical_size(tmp_path):
    rng, folder = np.random.default_rng(0), tmp_path / "S"
    (folder / "01").mkdir(parents=True), (folder / "01_GT" / "SEG").mkdir(parents=True)
    for n, (shape, count) in enumerate([((160, 160), 12)] * 3 + [((320, 320), 48)]):
        image, labels = field_of_view(rng, shape, count)
        tifffile.imwrite(folder / "01" / f"t{n:03d}.tif", image)
        tifffile.imwrite(folder / "01_GT" / "SEG" / f"man_seg{n:03d}.tif", labels)
    prepare(PrepareSettings(folder, output_dir=tmp_path / "crops", crop_size=32, spacing_um=[0.5, 0.5]))
    found = Statistics.load(tmp_path / "crops")
    assert found.image_shape == (160, 160)
    assert found.cells_per_image == pytest.approx([12] * 4, abs=1)
