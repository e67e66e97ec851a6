import os
import signal
import subprocess
import sys
import time

import pytest

from cascade.files import replacing
from cascade.locks import Busy, exclusive, remove_dead, scratch, shared

HOLD = """
import sys, time, pathlib
from cascade.files import replacing
from cascade.locks import *
f = pathlib.Path(sys.argv[1])
"""


def holding(code, folder):
    """A process that runs `code` and says so when it has come to its end; it then waits to be killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"{HOLD}{code}\n    print('ready', flush=True); time.sleep(60)", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_a_folder_is_held_until_its_process_dies_however_it_dies(tmp_path):
    folder = tmp_path / "out"
    process = holding("with exclusive(f, 'cascade prepare'):", folder)
    for kind in (exclusive, shared):
        with pytest.raises(Busy, match=r"out: cascade prepare is at work in it"), kind(folder, "cascade thin"):
            pass
    kill(process)
    with exclusive(folder, "cascade thin"):
        pass
    assert list(folder.iterdir()) == []


def test_many_may_share_a_folder_and_none_has_it_alone_meanwhile(tmp_path):
    with shared(tmp_path / "out", "cascade generate"):
        with shared(tmp_path / "out", "cascade generate"):
            pass
        with pytest.raises(Busy, match="cascade generate is at work"), exclusive(tmp_path / "out", "cascade thin"):
            pass
    assert not (tmp_path / "out").exists()


def test_a_lock_leaves_what_lies_in_the_folder(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with exclusive(tmp_path, "cascade prepare"):
        (tmp_path / "new").write_text("")
    assert {p.name for p in tmp_path.iterdir()} == {"notes.txt", "new"}


@pytest.mark.parametrize("place", ["file/out", "n" * 300, "deep/" * 1000, "leads_nowhere"])
def test_a_folder_that_cannot_be_is_refused_in_one_line(place, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "leads_nowhere").symlink_to(tmp_path / "nowhere" / "at all")
    with (
        pytest.raises(OSError, match=r"^[^\n]{,250}: cannot be written to"),
        exclusive(tmp_path / place, "cascade thin"),
    ):
        pass
    assert {p.name for p in tmp_path.iterdir()} == {"file", "leads_nowhere"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_permission_is_refused_in_one_line(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(OSError, match="cannot be written to"), exclusive(tmp_path / "closed" / "out", "cascade thin"):
        pass


def test_scratch_folders_of_the_dead_are_removed_and_those_of_the_living_kept(tmp_path):
    place = tmp_path / "partial"
    dead, living = (holding("with scratch(f, '000001-') as s:\n    (s / 'half').touch()", place) for _ in range(2))
    assert len(list(place.glob("*/half"))) == 2
    kill(dead)
    (place / "000002-host-123").mkdir()  # as earlier versions called theirs
    remove_dead(place)
    assert len(list(place.glob("*/half"))) == 1
    assert len(list(place.iterdir())) == 2
    with scratch(place) as own:
        assert own.is_dir()
    kill(living)
    remove_dead(place)
    assert not place.exists()


def test_a_temporary_file_of_a_killed_process_goes_when_the_file_is_written(tmp_path):
    path = tmp_path / "provenance.jsonl"
    dead, living = (holding("with replacing(f) as t:\n    t.write_text('half')", path) for _ in range(2))
    kill(dead)
    assert len(list(tmp_path.iterdir())) == 2
    with replacing(path) as temporary:
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert len(list(tmp_path.iterdir())) == 2  # that of the living is there
    kill(living)
    with replacing(path) as temporary:
        temporary.write_text("whole")
    assert list(tmp_path.iterdir()) == [path]


def test_many_processes_at_once_never_both_hold_a_folder(tmp_path):
    """Each adds a line and looks, for a while, that nobody else does."""
    code = HOLD + (
        "import os, secrets\nend = time.time() + 0.7; held = 0\nwhile time.time() < end:\n"
        "    try:\n        with exclusive(f / 'out', 'x'):\n"
        "            own = secrets.token_hex(8); (f / 'who').write_text(own); time.sleep(0.002)\n"
        "            assert (f / 'who').read_text() == own; held += 1\n"
        "    except Busy:\n        pass\nprint(held)"
    )
    start = time.time()
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    held = [int(process.communicate()[0] or -1) for process in processes]
    assert min(held) >= 0, held
    assert sum(held) > 5, held
    assert time.time() - start < 30
