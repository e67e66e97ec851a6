"""Only what the tool wrote is replaced; a process that is killed on the way leaves a folder that the next run mends."""

import json
import multiprocessing
import os
import shutil

import numpy as np
import pytest
from conftest import field_of_view, write_ctc_2d

from cascade.annotation import Annotation, Sample
from cascade.commands.cli import main
from cascade.commands.demo import demo
from cascade.data.prepare import prepare
from cascade.data.settings import PrepareSettings, ThinSettings
from cascade.data.thin import thin
from cascade.export.save import save_samples
from cascade.files import exclusive
from cascade.ownership import check_outside, is_free, renewing
from cascade.population.bank import stored_bank


def fill(folder, **files):
    """A run of some command, whose last file is `last`."""
    with exclusive(folder, "cascade test"), renewing(folder, "test", last="last", older=["old*", "last"]) as partial:
        for name, text in files.items():
            path = partial / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)


def contents(folder):
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and ".cascade" not in p.relative_to(folder).parts)
    return {str(p.relative_to(folder)): p.read_text() for p in files}


def test_what_was_written_before_is_replaced_and_nothing_else(tmp_path):
    folder = tmp_path / "out"
    fill(folder, a="1", sub__b="1", gone__c="1", last="1")
    (folder / "sub" / "notes").write_text("mine")
    (folder / "gone.partial").mkdir()
    (tmp_path / "out.partial").mkdir()
    os.utime(folder / "gone" / "c")  # another time, the same bytes
    fill(folder, a="2", sub__b="2", last="2")
    assert contents(folder) == {"a": "2", "sub/b": "2", "last": "2", "sub/notes": "mine"}
    assert not (folder / "gone").exists()
    assert (folder / "gone.partial").is_dir()
    assert (tmp_path / "out.partial").is_dir()
    assert [p.name for p in (folder / ".cascade").iterdir()] == ["files.json"]


def test_what_was_changed_since_is_kept(tmp_path, caplog):
    fill(tmp_path, a="1", b="1", last="1")
    (tmp_path / "a").write_text("my work")
    (tmp_path / "b").write_text("my work, too")
    fill(tmp_path, a="2", last="2")
    assert contents(tmp_path) == {"a": "2", "b": "my work, too", "last": "2"}
    assert (tmp_path / ".cascade" / "changed" / "a").read_text() == "my work"
    assert "a was changed since it was made" in caplog.text


def test_a_run_that_fails_leaves_what_was_there(tmp_path):
    fill(tmp_path / "out", a="1", last="1")
    with pytest.raises(TypeError):
        fill(tmp_path / "out", a="2", last=3)
    assert contents(tmp_path / "out") == {"a": "1", "last": "1"}
    with pytest.raises(TypeError):
        fill(tmp_path / "new", a=3)
    assert not (tmp_path / "new").exists()


def die_after(moves, folder, files):
    replace, count = os.replace, [0]

    def counted(*arguments):
        count[0] += 1
        if count[0] > moves:
            os.kill(os.getpid(), 9)
        replace(*arguments)

    os.replace = counted
    fill(folder, **files)


@pytest.mark.parametrize("older", [False, True])
def test_killed_at_any_moment_the_next_run_mends(tmp_path, older):
    """Killed before each rename, by runs that write this and that, also one after the other."""
    context = multiprocessing.get_context("fork")
    start = {"old_a": "0", "last": "0"} if older else {"a": "1", "x": "1", "last": "1"}
    runs = ({"a": "2", "x": "2", "y": "2", "last": "2"}, {"a": "3", "z": "3", "last": "3"})
    for moves in range(7):
        folder = tmp_path / str(moves)
        if older:
            folder.mkdir()
            for name, text in start.items():
                (folder / name).write_text(text)
        else:
            fill(folder, **start)
        (folder / "notes").write_text("mine")
        codes = []
        for files in runs:
            process = context.Process(target=die_after, args=(moves, folder, files))
            process.start()
            process.join()
            codes.append(process.exitcode)
        assert codes[0] == (-9 if moves < 6 else 0)
        assert is_free(folder, "test", older=older)
        fill(folder, a="4", y="4", last="4")
        assert contents(folder) == {"a": "4", "y": "4", "last": "4", "notes": "mine"}
        assert {p.name for p in (folder / ".cascade").iterdir()} - {"changed"} == {"files.json"}
        assert not (folder / ".cascade" / "changed").exists() or older  # of older files only the names are known


def refusing_mount(do):
    def refuse(*paths, **options):
        if any(os.path.basename(path) == "mount" for path in paths):
            raise OSError(16, "Device or resource busy", str(paths[0]))
        return do(*paths, **options)

    return refuse


@pytest.mark.parametrize("place", [".", "link", "mount"])
def test_it_works_where_a_folder_cannot_be_renamed(place, tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    monkeypatch.chdir(tmp_path / "real")
    (tmp_path / "real" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    if place == "mount":  # nothing can be renamed or removed there, as a mount point cannot
        (tmp_path / "real" / "mount").mkdir()
        monkeypatch.setattr(
            shutil, "rmtree", lambda path, **_: pytest.fail("removed") if path.name == "mount" else None
        )
    for n in "12":
        fill(tmp_path / "real" / place if place != "." else type(tmp_path)("."), a=n, last=n)
    found = contents(tmp_path / "real" / place)
    assert (found["a"], found["last"]) == ("2", "2")
    assert (tmp_path / "real" / "link").is_symlink()


def test_a_folder_of_another_kind_is_not_free(tmp_path):
    assert is_free(tmp_path / "none", "test")
    assert is_free(tmp_path, "test")
    (tmp_path / "notes").write_text("mine")
    assert not is_free(tmp_path, "test")
    fill(tmp_path / "out", last="1")
    assert is_free(tmp_path / "out", "test")
    assert not is_free(tmp_path / "out", "model")
    (tmp_path / "out" / ".cascade" / "files.json").write_text("nul")
    with pytest.raises(ValueError, match=r"files.json: cannot be read .*; remove the file"):
        is_free(tmp_path / "out", "test")


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    source = write_ctc_2d(tmp_path_factory.mktemp("data") / "Planes", 1)
    prepare(PrepareSettings(source, output_dir=source.parent / "crops", crop_size=32))
    return source, source.parent / "crops"


def test_crops_are_prepared_again_around_what_lies_beside_them(crops, tmp_path):
    source, folder = crops
    for old in (False, True):
        place = tmp_path / str(old)
        shutil.copytree(folder, place)
        if old:
            shutil.rmtree(place / ".cascade")
        (place / "model").mkdir()
        (place / "model" / "weights").write_text("hours")
        (place / "notes.txt").write_text("mine")
        prepare(PrepareSettings(source, output_dir=place, crop_size=48))
        assert (place / "model" / "weights").read_text() == "hours"
        assert (place / "notes.txt").read_text() == "mine"
        assert "48×48" in (place / "README.md").read_text()
        assert len(list(place.glob("data/*"))) == 1


def test_only_one_prepares_into_a_folder(crops, tmp_path, capsys):
    arguments = [str(crops[0]), "--output_dir", str(tmp_path / "out")]
    with exclusive(tmp_path / "out", "cascade prepare"):
        assert main(["prepare", *arguments]) == 1
        assert main(["thin", *arguments, "--cells", "1"]) == 1
        assert main(["fit", *arguments]) == 1
        assert main(["assemble", *arguments]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 4
    assert all("out: cascade prepare is at work in it; wait for its end" in line for line in said)
    assert not (tmp_path / "out").exists()


def test_outputs_among_the_images_are_refused(crops):
    source, _ = crops
    for output in (source, source / "01", source / "01_GT" / "SEG", source / "03"):
        for do in (
            lambda output: prepare(PrepareSettings(source, output_dir=output)),
            lambda output: thin(ThinSettings(source, output_dir=output, cells=1)),
        ):
            with pytest.raises(ValueError, match="is where the images are read from"):
                do(output)
    with pytest.raises(ValueError, match="lies inside, the model"):
        check_outside(source / "x", source, "the model")


def test_a_thinning_that_was_killed_is_begun_anew_and_a_finished_one_kept(crops, tmp_path):
    source, output = crops[0], tmp_path / "few"
    thin(ThinSettings(source, output_dir=output, cells=2))
    (output / "thinned.json").unlink()  # the last to come
    os.rename(output / ".cascade" / "files.json", output / ".cascade" / "moving-1.json")
    thin(ThinSettings(source, output_dir=output, cells=3))
    assert len(json.loads((output / "thinned.json").read_text())["kept"][0]["labels"]) == 3
    with pytest.raises(FileExistsError, match="is not empty"):
        thin(ThinSettings(source, output_dir=output, cells=2))


def some(count, seed=0):
    for n in range(count):
        image, labels = field_of_view(np.random.default_rng(seed + n), (48, 48), 2)
        yield Sample(image, Annotation.of_labels(labels, (1.0, 1.0)), seed, n)


def test_fewer_samples_are_saved_over_more(tmp_path):
    for old in (False, True):
        folder = tmp_path / str(old)
        save_samples(some(3), folder)
        if old:
            shutil.rmtree(folder / ".cascade")
        (folder / "01" / "notes.txt").write_text("mine")
        save_samples(some(1, seed=5), folder)
        names = {p.name for p in folder.rglob("*") if p.is_file()}
        assert "notes.txt" in names
        assert {n for n in names if n.endswith(".tif")} == {"t000.tif", "man_seg000.tif", "man_track000.tif"}


def test_a_demo_that_cannot_be_written_says_so_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("cascade.commands.demo.load", lambda *_: pytest.fail("the work began"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file/demo: cannot be written to"):
        demo(tmp_path / "file" / "demo", 0)


def test_a_broken_bank_is_named_with_the_mend(tmp_path):
    assert stored_bank(tmp_path / "bank", 40, lambda part, size: []) == []
    for name, harm, message in (
        (
            "000001.safetensors",
            b"\x00\x01",
            r"000001.safetensors: cells of the bank cannot be read .*; remove the file",
        ),
        ("together", b"", r"together: holds '', not how many cells are made at once; remove .*bank"),
        ("together", b"\xff\xfe", "not how many cells"),
    ):
        whole = (tmp_path / "bank" / name).read_bytes()
        (tmp_path / "bank" / name).write_bytes(harm)
        with pytest.raises(ValueError, match=message):
            stored_bank(tmp_path / "bank", 40, lambda part, size: [])
        (tmp_path / "bank" / name).write_bytes(whole)
    assert sorted(p.name for p in (tmp_path / "bank").iterdir())[-1] == "together"
