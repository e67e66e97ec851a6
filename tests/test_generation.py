import json
import multiprocessing
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import field_of_view
from tqdm.auto import tqdm

from cascade.annotation import Annotation, Sample
from cascade.generation import shards as generation
from cascade.generation.shards import Job, again, progress, run, start
from cascade.rng import stream


def made_up(seed, numbers, pause=0.0):
    """Stands in for a pipeline: samples that depend on seed and number alone."""
    for number in numbers:
        image, labels = field_of_view(stream(seed, number), (64, 64), 3)
        time.sleep(pause)
        yield Sample(image, Annotation.of_labels(labels, (0.5, 0.5)), seed, number)


def job(**changes):
    options = dict(
        model="m", model_sha256="0", version="1", seed=5, num_images=7, shard_size=2, formats=("ctc",),
        frames_per_sequence=4, meshes=False, settings={"rho": 0.7},
    )  # fmt: skip
    return Job(**(options | changes))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and ".cascade" not in p.parts
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one") / "set"
    start(folder, job())
    assert run(folder, job(), made_up)
    return folder


def test_a_whole_set_has_everything(undisturbed):
    names = set(contents(undisturbed))
    assert {"01/t003.tif", "02/t002.tif", "02_GT/TRA/man_track.txt", "preview.png", "cells.parquet"} <= names
    assert len([n for n in names if n.startswith(("01/", "02/"))]) == 7
    records = [json.loads(line) for line in (undisturbed / "provenance.jsonl").read_text().splitlines()]
    assert [r["sample"] for r in records] == list(range(7))
    assert progress(undisturbed, job()) == (4, 4)
    assert not (undisturbed / ".cascade" / "partial").exists()


@pytest.mark.parametrize("world", [2, 4])
def test_many_processes_give_the_same_bytes(undisturbed, tmp_path, world):
    start(tmp_path / "set", job())
    whole = [run(tmp_path / "set", job(), made_up, rank, world) for rank in reversed(range(world))]
    assert whole == [False] * (world - 1) + [True]
    assert contents(tmp_path / "set") == contents(undisturbed)


def _slowly(folder):
    tqdm.set_lock(threading.RLock())  # not that of all processes, which would die locked
    start(folder, job())
    run(folder, job(), lambda seed, numbers: made_up(seed, numbers, 0.05))


def being_made(partial) -> set:
    """Folders of shards that are not finished; the process that makes them may take them away meanwhile."""
    try:
        return set(partial.glob("*/files"))
    except FileNotFoundError:
        return set()


def test_killed_at_any_moment_it_goes_on_where_it_was(undisturbed, tmp_path):
    """The process is killed with SIGKILL again and again, at moments spread over its whole work."""
    context = multiprocessing.get_context("fork")
    deaths, partial = 0, tmp_path / "set" / ".cascade" / "partial"
    (partial / "000001-host-123").mkdir(parents=True)  # left by an earlier version
    for delay in np.random.default_rng(0).uniform(0.0, 0.25, 6):
        before = being_made(partial)
        process = context.Process(target=_slowly, args=(tmp_path / "set",))
        process.start()
        while process.is_alive() and being_made(partial) <= before:
            time.sleep(0.005)
        time.sleep(delay)
        process.kill()
        process.join()
        if process.exitcode == 0:
            break
        deaths += 1
    assert deaths >= 2
    run(tmp_path / "set", job(), made_up)
    assert contents(tmp_path / "set") == contents(undisturbed)
    assert {p.name for p in (tmp_path / "set" / ".cascade").iterdir()} == {"job.json", "shards", "index.json"}


def test_finished_shards_are_not_made_again(undisturbed):
    def refuse(seed, numbers):
        raise AssertionError("everything is there")

    start(undisturbed, job())
    assert run(undisturbed, job(), refuse)


def test_another_job_or_another_folder_is_refused(undisturbed, tmp_path):
    with pytest.raises(ValueError, match="made with other rho, seed; name another folder, or remove it"):
        start(undisturbed, job(seed=6, settings={"rho": 1.0}))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds something else"):
        start(tmp_path, job())
    with pytest.raises(ValueError, match="no format 'jpeg'"):
        start(tmp_path / "new", job(formats=("jpeg",)))
    assert not (tmp_path / "new").exists()
    with pytest.raises(FileNotFoundError, match="not made by 'cascade generate'"):
        generation.load_job(tmp_path)


def test_one_sample_is_made_again_bit_for_bit(undisturbed):
    assert contents(again(undisturbed, job(), made_up, 5)) == {}  # of the tool's own, hidden in .cascade
    assert sorted(p.name for p in (undisturbed / ".cascade" / "again").rglob("*.tif")) == ["man_seg001.tif", "t001.tif"]
    with pytest.raises(ValueError, match=r"differs from what was recorded.*02/t001.tif.*another machine"):
        again(undisturbed, job(), lambda seed, numbers: made_up(seed + 1, numbers), 5)
    with pytest.raises(ValueError, match="no sample 7"):
        again(undisturbed, job(), made_up, 7)


def test_a_full_disk_costs_the_unfinished_shard_only(undisturbed, tmp_path, monkeypatch):
    from cascade.export import ctc

    original, calls = ctc.write_tiff, []

    def full(path, *args):
        calls.append(path)
        if len(calls) == 7:
            raise OSError(28, "No space left on device", str(path))
        original(path, *args)

    start(tmp_path / "set", job())
    monkeypatch.setattr(ctc, "write_tiff", full)
    with pytest.raises(OSError, match="No space left"):
        run(tmp_path / "set", job(), made_up)
    monkeypatch.undo()
    assert progress(tmp_path / "set", job()) == (1, 4)
    assert not (tmp_path / "set" / "provenance.jsonl").exists()
    assert run(tmp_path / "set", job(), made_up)
    assert contents(tmp_path / "set") == contents(undisturbed)
