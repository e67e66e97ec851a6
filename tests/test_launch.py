import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import torch
import zarr
from made_up import statistics

from cascade.commands.cli import main
from cascade.commands.generate import model_sha256, sequence_length
from cascade.generation import shards as generation
from cascade.generation.load import load
from cascade.generation.recipe import Recipe
from cascade.generation.settings import GenerationSettings
from cascade.hub.embedded import embedded
from cascade.hub.statistics import saved_statistics
from cascade.optics.statistics import Statistics
from cascade.population.settings import CascadeSettings

SMALL = ["--model", "nuclei2d", "--canvas_size", "128", "128", "--cells_per_image", "6", "--num_inference_steps", "2"]
SMALL += ["--min_alignment", "0", "--num_images", "4", "--shard_size", "2"]
BANK = [*SMALL, "--bank", "5"]


def contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and ".cascade" not in p.parts)
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def banked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bank") / "set"
    assert main(["generate", *BANK, "--output_dir", str(folder)]) == 0
    return folder


def test_a_bank_serves_all_images(banked):
    table = pq.read_table(banked / "cells.parquet").to_pydict()
    assert len(table["label"]) == sum(tifffile.imread(p).max() for p in (banked / "01_GT" / "SEG").iterdir())
    assert set(table["bank"]) <= set(range(5))
    images = [tifffile.imread(p) for p in sorted((banked / "01").iterdir())]
    assert len({image.tobytes() for image in images}) == 4


def test_processes_share_a_bank_and_give_the_same_bytes(banked, tmp_path):
    """Two at once, as accelerate would start them; the environment of the test's own process is theirs, too."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "cascade", "generate", *BANK, "--output_dir", str(tmp_path / "set")],
            env=os.environ | {"RANK": str(rank), "WORLD_SIZE": "2", "OMP_NUM_THREADS": str(torch.get_num_threads())},
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    errors = [process.communicate()[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    assert contents(tmp_path / "set") == contents(banked)
    assert not (tmp_path / "set" / ".cascade" / "partial").exists()


def test_a_mistake_is_said_at_once_and_can_be_mended(tmp_path, capsys):
    arguments = ["generate", *SMALL, "--num_images", "1", "--output_dir", str(tmp_path / "set")]
    assert main([*arguments, "--clustering_probability", "2"]) == 2
    assert "must be in [0, 1], got 2" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
    assert main([*arguments, "--canvas_size", "8", "64", "64"]) == 1
    assert main([*arguments, "--rho", "-1"]) == 2
    assert main([*arguments, "--cells_per_image", "70000", "--canvas_size", "8192", "8192"]) == 1
    assert "give another --format" in capsys.readouterr().err
    assert main(arguments) == 0


def test_what_planes_have_no_use_for_is_refused(tmp_path, capsys):
    arguments = ["generate", *SMALL, "--output_dir", str(tmp_path / "set")]
    assert main([*arguments, "--meshes", "--shapes", "harmonics"]) == 1
    assert "makes planes, and --meshes, --shapes is for stacks" in capsys.readouterr().err
    assert main([*arguments, "--correlation_length_um", "2"]) == 1
    if not torch.cuda.is_available():
        assert main([*arguments, "--device", "cuda"]) == 1
        assert "sees no GPU" in capsys.readouterr().err
    for wrong, message in (
        (["--num_images", "few"], "--num_images must be a whole number, got few"),
        (["--seed", "-1"], "--seed must be a whole number from 0, got -1"),
        (["--min_alignment", "6"], "--min_alignment must be in [0, 1], got 6"),
        (["--num_image", "2"], "there is no --num_image; did you mean --num_images?"),  # nothing is abbreviated
    ):
        assert main([*arguments, *wrong]) == 2
        assert message in capsys.readouterr().err


def test_another_region_is_another_data_set(tmp_path, capsys):
    region = np.zeros((128, 128), np.uint8)
    region[:64] = 1
    tifffile.imwrite(tmp_path / "region.tif", region)
    arguments = ["generate", *SMALL, "--output_dir", str(tmp_path / "set"), "--region", str(tmp_path / "region.tif")]
    assert main(arguments) == 0
    tifffile.imwrite(tmp_path / "region.tif", 1 - region)
    assert main(arguments) == 1
    assert "made with other region;" in capsys.readouterr().err


def test_sequences_are_as_short_as_their_track_ids_want():
    """Of at most 65,535 numbers each cell of each image takes one."""
    few, many = statistics(cells_per_image=[12]), statistics(cells_per_image=[100, 300])
    settings, recipe = GenerationSettings(output_dir=Path()), Recipe(images=CascadeSettings())
    assert sequence_length(few, settings, recipe) == 400
    length = sequence_length(many, settings, recipe)
    assert 65_535 // 310 <= length <= 65_535 // 300
    recipe = Recipe(images=CascadeSettings(canvas_size=(1024, 1024)))  # sixteen times the area
    assert sequence_length(many, settings, recipe) == pytest.approx(length / 16, abs=1)


def test_settings_come_from_a_file_and_flags_win(tmp_path, capsys):
    config, arguments = tmp_path / "set.yaml", ["generate", *SMALL, "--output_dir", str(tmp_path / "set")]
    config.write_text("clustering_probability: 3\nmeshes: false\ncanvas_size: [64, 64]\nformat: [ctc, coco]\n")
    assert main([*arguments, "--config", str(config)]) == 2
    assert "must be in [0, 1], got 3" in capsys.readouterr().err
    assert main([*arguments, f"--config={config}"]) == 2
    assert "must be in [0, 1], got 3" in capsys.readouterr().err
    assert main([*arguments, "--config", str(config), "--clustering_probability", "2"]) == 2
    assert "must be in [0, 1], got 2" in capsys.readouterr().err
    config.write_text("shape: harmonics\n")
    assert main([*arguments, "--config", str(config)]) == 2
    assert "--shape" in capsys.readouterr().err
    for text, said in (("- a\n- b\n", "has no settings"), ("a: [1", "set.yaml: Problems parsing")):
        config.write_text(text)
        assert main([*arguments, "--config", str(config)]) == 2
        assert said in capsys.readouterr().err
    assert main([*arguments, "--config", str(tmp_path / "none.yaml")]) == 2
    assert "none.yaml" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_the_config_of_the_ablation_is_understood(tmp_path, capsys):
    config = Path(__file__).parents[1] / "configs" / "ablation_harmonics.yaml"
    arguments = ["generate", "--config", str(config), "--output_dir", str(tmp_path / "set")]
    assert main([*arguments, "--clustering_probability", "2"]) == 2  # all else was taken
    assert "must be in [0, 1], got 2" in capsys.readouterr().err


def test_a_sample_from_a_bank_is_made_again(banked, capsys):
    assert main(["generate", "--model", "nuclei2d", "--output_dir", str(banked), "--only", "3"]) == 0
    assert "byte for byte" in capsys.readouterr().out
    assert main(["generate", "--model", "nuclei3d", "--output_dir", str(banked), "--only", "3"]) == 1
    assert "made with another model (nuclei2d)" in capsys.readouterr().err


def test_a_large_canvas_is_composed_of_tiles(tmp_path, capsys):
    arguments = ["generate", *BANK, "--num_images", "1", "--output_dir", str(tmp_path / "big"), "--tiles"]
    assert main(arguments) == 0
    labels = zarr.open_group(tmp_path / "big" / "sample_000000.ome.zarr", mode="r")["labels/cells/0"][:]
    assert labels.shape == (128, 128)
    assert 1 <= labels.max() <= 6
    table = pq.read_table(tmp_path / "big" / "cells.parquet").to_pydict()
    assert table["label"] == list(range(1, labels.max() + 1))
    before = contents(tmp_path / "big")
    assert main(arguments) == 0
    assert contents(tmp_path / "big") == before
    assert main([*arguments, "--seed", "1"]) == 1  # no image of another seed is added
    assert "made with other seed" in capsys.readouterr().err
    assert main(["generate", *SMALL, "--tiles", "--output_dir", str(tmp_path / "none")]) == 2
    assert "--tiles needs" in capsys.readouterr().err
    assert main(["generate", *BANK, "--meshes", "--output_dir", str(tmp_path / "none")]) == 2
    assert not (tmp_path / "none").exists()


def test_half_precision_gives_nearly_the_same_cells(banked, tmp_path):
    arguments = ["generate", *BANK, "--dtype", "bfloat16", "--output_dir", str(tmp_path / "half")]
    assert main(arguments) == 0
    names = ("01/t000.tif", "01_GT/SEG/man_seg000.tif")
    images, labels = ([tifffile.imread(folder / name) for folder in (banked, tmp_path / "half")] for name in names)
    assert (labels[0] > 0).sum() == pytest.approx((labels[1] > 0).sum(), rel=0.25)
    assert images[0].mean() == pytest.approx(images[1].mean(), rel=0.25)
    assert generation.load_job(tmp_path / "half").settings["dtype"] == "bfloat16"
    arguments.remove("--dtype"), arguments.remove("bfloat16")
    assert main(arguments) == 0  # a set is gone on with as it was begun, whatever this processor is fast in
    assert main([*arguments, "--dtype", "float32"]) == 1


def test_compile_reaches_the_networks_that_take_the_time(tmp_path, monkeypatch):
    """Compiling them takes minutes: what is tested is which networks are told to, and that they are still used."""
    told, used = [], set()

    def compile(network):
        told.append(type(network).__name__)
        network.register_forward_pre_hook(lambda module, _: used.add(type(module).__name__))

    monkeypatch.setattr(torch.nn.Module, "compile", compile)
    load(embedded("nuclei2d"))
    assert not told
    assert main(["generate", *SMALL, "--num_images", "1", "--compile", "--output_dir", str(tmp_path / "set")]) == 0
    assert sorted(told) == sorted(used) == ["ControlNetModel", "UNet2DConditionModel"]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a file system that nobody can write to")
def test_a_folder_that_cannot_be_written_gives_one_line(capsys):
    assert main(["generate", *SMALL, "--output_dir", "/proc/synthetic"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "/proc/synthetic" in line


def test_a_model_without_its_own_views_is_known_by_the_embedded_ones(tmp_path):
    shutil.copytree(embedded("nuclei3d"), tmp_path / "own")
    shutil.copytree(tmp_path / "own", tmp_path / "without", ignore=lambda *_: ["multiview", "model_index.json"])
    Statistics.from_dict(saved_statistics(tmp_path / "own")).save(tmp_path / "without")
    ids = [model_sha256(folder) for folder in (embedded("nuclei3d"), tmp_path / "own", tmp_path / "without")]
    assert ids[0] == ids[1] != ids[2]
    assert generation.folder_sha256(embedded("nuclei3d") / "multiview") in ids[2]


def test_a_dry_run_tells_and_writes_nothing(tmp_path, capsys):
    assert main(["generate", *BANK, "--dry_run", "--output_dir", str(tmp_path / "set")]) == 0
    said = capsys.readouterr().out
    assert "one image:" in said
    assert "4 images: about" in said
    assert main(["generate", *BANK, "--dry_run", "--format", "jpeg", "--output_dir", str(tmp_path / "set")]) == 2
    assert main(["generate", *BANK, "--dry_run", "--rho", "-1", "--output_dir", str(tmp_path / "set")]) == 2
    assert "one image:" not in capsys.readouterr().out
    assert not (tmp_path / "set").exists()


def test_a_slurm_array_makes_the_set(banked, tmp_path):
    """Without a cluster submitit runs the tasks as processes of this machine."""
    arguments = ["generate", *BANK, "--output_dir", str(tmp_path / "set"), "--slurm", "cpu", "--slurm_tasks", "2"]
    assert main(arguments) == 0
    end = time.monotonic() + 180
    while not (tmp_path / "set" / "provenance.jsonl").is_file():
        assert time.monotonic() < end, [p.read_text()[-2000:] for p in tmp_path.glob("set/.cascade/slurm/*.err")]
        time.sleep(0.2)
    records = [json.loads(line) for line in (tmp_path / "set" / "provenance.jsonl").read_text().splitlines()]
    assert [record["sample"] for record in records] == [0, 1, 2, 3]
    # The tasks choose their own number of threads, and sums over threads may differ in the last bit.
    assert contents(tmp_path / "set").keys() == contents(banked).keys()


def test_a_canvas_that_memory_does_not_hold_asks_for_tiles(tmp_path, capsys):
    arguments = ["generate", *SMALL, "--canvas_size", "2000000", "2000000", "--output_dir", str(tmp_path / "set")]
    assert main(arguments) == 1
    assert "compose it of tiles (--tiles --bank" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
