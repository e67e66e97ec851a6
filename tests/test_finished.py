"""Finished data sets are looked at: what is missing, emptied or changed is named and made again."""

import json
import multiprocessing
import os
import shutil
import threading

import numpy as np
import pytest
from conftest import field_of_view

from cascade.annotation import Annotation, Sample
from cascade.files import Busy
from cascade.generation.shards import Job, again, load_job, run, start
from cascade.rng import stream


def made_up(seed, numbers):
    for number in numbers:
        image, labels = field_of_view(stream(seed, number), (48, 48), 2)
        yield Sample(image, Annotation.of_labels(labels, (0.5, 0.5)), seed, number)


def refuse(seed, numbers):
    raise AssertionError("everything is there")


def job(**changes):
    options = dict(
        model="m", model_sha256="0", version="1", seed=5, num_images=5, shard_size=2, formats=("ctc",),
        frames_per_sequence=4, meshes=False, settings={"rho": 0.7},
    )  # fmt: skip
    return Job(**(options | changes))


def contents(folder):
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and ".cascade" not in p.parts)
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one") / "set"
    start(folder, job())
    assert run(folder, job(), made_up)
    return folder


@pytest.fixture
def whole(original, tmp_path):
    return shutil.copytree(original, tmp_path / "set")


HARM = {
    "missing": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "changed": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"),
}


@pytest.mark.parametrize("fault", HARM)
@pytest.mark.parametrize(
    "name", ["02/t000.tif", "01_GT/SEG/man_seg001.tif", "01_GT/TRA/man_track002.tif", "01_GT/TRA/man_track.txt",
             "dataset.json", "cells.parquet", "provenance.jsonl", "preview.png"],
)  # fmt: skip
def test_what_is_wrong_is_named_and_mended(whole, original, caplog, fault, name):
    (whole / "01" / "notes.txt").write_text("mine")
    HARM[fault](whole / name)
    harmed = (whole / name).read_bytes() if fault == "changed" else None
    start(whole, job())
    assert run(whole, job(), made_up)
    assert f"{whole / name} is {fault}: made again" in caplog.text
    assert contents(whole) == contents(original) | {"01/notes.txt": b"mine"}
    kept = whole / ".cascade" / "changed" / name  # it may be someone's work
    assert (kept.read_bytes() if kept.is_file() else None) == harmed
    assert run(whole, job(), refuse)


def test_only_the_shard_concerned_is_made_again(whole):
    (whole / "01" / "t003.tif").unlink()
    made = []
    assert run(whole, job(), lambda seed, numbers: made.extend(numbers) or made_up(seed, numbers))
    assert made == [2, 3]


def test_a_copied_set_is_sound_and_so_is_one_of_an_earlier_version(whole, original):
    for path in whole.rglob("*.*"):
        os.utime(path)  # all times are others than those recorded
    assert run(whole, job(), refuse)
    for path in whole.glob(".cascade/shards/*.json"):
        record = json.loads(path.read_text())
        record["files"] = {name: stamp["sha256"] for name, stamp in record["files"].items()}
        path.write_text(json.dumps(record))
    (whole / ".cascade" / "index.json").unlink()
    assert run(whole, job(), refuse)
    for name, harm in (("cells.parquet", "missing"), ("provenance.jsonl", "emptied")):
        (whole / ".cascade" / "index.json").unlink(missing_ok=True)
        HARM[harm](whole / name)
        assert run(whole, job(), refuse)
        assert (whole / name).read_bytes() == (original / name).read_bytes()
    (whole / "01" / "t000.tif").write_bytes(b"")
    with pytest.raises(AssertionError, match="everything is there"):
        run(whole, job(), refuse)


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{", '{"records": 3, "files": {}}', '{"files": {"a": {"size": 1}}}']
)
def test_a_broken_mark_counts_as_not_done(whole, original, caplog, text):
    (whole / ".cascade" / "shards" / "000001.json").write_text(text)
    assert run(whole, job(), made_up)
    assert contents(whole) == contents(original)
    assert "000001.json: no mark of a finished shard" in caplog.text


@pytest.mark.parametrize("text", ["", "null", '{"model": "m"', '{"model": "m"}', "\x00\x01", '{"seed": "5"}'])
def test_a_broken_job_is_named_with_the_mend(whole, text):
    path = whole / ".cascade" / "job.json"
    path.write_text(text)
    for do in (lambda: load_job(whole), lambda: start(whole, job())):
        with pytest.raises(ValueError, match=r"job.json: .*; restore the file, or name another folder"):
            do()
    path.write_bytes('{"model": "é"}'.encode("utf-16"))
    with pytest.raises(ValueError, match=r"job.json: cannot be read \(UnicodeDecodeError\)"):
        load_job(whole)


def test_a_sample_made_again_is_compared_with_the_file_that_is_there(whole):
    HARM["changed"](whole / "02" / "t000.tif")
    with pytest.raises(ValueError, match=r"made as it was, but 02/t000.tif is changed in .*without --only mends it"):
        again(whole, job(), made_up, 4)
    assert again(whole, job(), made_up, 3).is_dir()


def test_the_model_may_be_called_otherwise(whole, original):
    other = job(model="/somewhere/else/m")
    (whole / "dataset.json").unlink()
    start(whole, other)
    assert run(whole, other, refuse)
    assert contents(whole) == contents(original)  # also what is recorded of it
    with pytest.raises(ValueError, match="made with other model; name"):
        start(whole, job(model_sha256="1"))


def attempt(folder, seed, together, said):
    together.wait()
    try:
        start(folder, job(seed=seed))
        run(folder, job(seed=seed), made_up)
        said.put((seed, "made"))
    except (ValueError, OSError) as error:
        said.put((seed, str(error)))


def test_jobs_with_other_settings_never_mix(tmp_path):
    """Six at once with a seed each: one makes its data set, and every other one is refused in one line."""
    context = multiprocessing.get_context("fork")
    for trial in range(3):
        folder, together, said = tmp_path / str(trial), context.Barrier(6), context.SimpleQueue()
        processes = [context.Process(target=attempt, args=(folder, seed, together, said)) for seed in range(6)]
        for process in processes:
            process.start()
        heard = dict(said.get() for _ in processes)
        for process in processes:
            process.join()
        made = [seed for seed, text in heard.items() if text == "made"]
        assert len(made) == 1, heard
        refused = [text for text in heard.values() if text != "made"]
        assert all("is at work in it" in text or "other seed" in text for text in refused), heard
        seeds = {json.loads(line)["seed"] for line in (folder / "provenance.jsonl").read_text().splitlines()}
        assert seeds == set(made)


def test_a_job_is_not_replaced_while_it_is_at_work(tmp_path):
    start(tmp_path / "set", job())
    reached, go_on = threading.Event(), threading.Event()

    def slow(seed, numbers):
        reached.set()
        assert go_on.wait(10)
        yield from made_up(seed, numbers)

    worker = threading.Thread(target=run, args=(tmp_path / "set", job(), slow))
    worker.start()
    assert reached.wait(10)
    try:
        with pytest.raises(Busy, match="cascade generate is at work in it"):
            start(tmp_path / "set", job(seed=6))
    finally:
        go_on.set()
        worker.join()
    assert load_job(tmp_path / "set") == job()


def test_a_job_that_was_replaced_before_it_had_begun_is_refused(tmp_path):
    start(tmp_path / "set", job())
    start(tmp_path / "set", job(seed=6))  # a mistake was mended
    with pytest.raises(Busy, match="another process has begun a data set with other seed there"):
        run(tmp_path / "set", job(), made_up)


def test_a_million_files_are_looked_at_by_size_and_time(whole, monkeypatch):
    monkeypatch.setattr("cascade.ownership.file_sha256", lambda path: pytest.fail("read"))
    copied = {p: p.stat() for p in whole.rglob("*")}
    assert all(np.isfinite(stat.st_size) for stat in copied.values())
    assert run(whole, job(), refuse)


@pytest.mark.parametrize("place", [".", "link"])
def test_a_set_is_made_where_a_folder_cannot_be_renamed(original, tmp_path, monkeypatch, place):
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    (tmp_path / "here" / "link").symlink_to("../there")
    monkeypatch.chdir(tmp_path / ("here" if place == "link" else "there"))
    start(place, job())
    assert run(place, job(), made_up)
    assert contents(tmp_path / "there") == contents(original)


def test_a_set_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    for place in ("file/set", "n" * 300, "file"):
        with pytest.raises(OSError, match=r"^[^\n]{,250}: (cannot be written to|is no folder)"):
            start(tmp_path / place, job())
