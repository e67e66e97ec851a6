"""How threads wait for each other: by what else runs on the cores, before torch is there."""

import os
import subprocess
import sys
import time

import psutil
import pytest
import torch

from cascade import waiting


@pytest.fixture
def cores(monkeypatch):
    """Two cores, as busy as the test says."""
    busy = [0.0, 0.0]
    monkeypatch.setattr(waiting, "_cores", lambda: [0, 1])
    monkeypatch.setattr(psutil, "cpu_percent", lambda interval, percpu: busy)
    return busy


@pytest.mark.parametrize(
    ("busy", "given", "chosen"),
    [
        ([3.0, 8.0], {}, {"GOMP_SPINCOUNT": "1000"}),
        ([100.0, 5.0], {}, {"OMP_WAIT_POLICY": "passive"}),
        ([100.0, 100.0], {"OMP_NUM_THREADS": "2"}, {"OMP_WAIT_POLICY": "passive"}),
        ([100.0, 100.0], {"OMP_NUM_THREADS": "1"}, {}),  # nobody to wait for
        ([100.0, 100.0], {"OMP_WAIT_POLICY": "active"}, {}),
        ([100.0, 100.0], {"GOMP_SPINCOUNT": "5"}, {}),
    ],
)
def test_threads_sleep_where_others_want_the_cores(cores, busy, given, chosen):
    cores[:] = busy
    environment = dict(given)
    waiting.wait_as_others_allow(environment)
    assert environment == given | chosen


@pytest.mark.parametrize(
    ("busy", "threads", "warnings"), [([100.0, 5.0], 2, 1), ([3.0, 60.0], 2, 0), ([100.0, 100.0], 1, 0)]
)
def test_torch_that_was_there_first_is_warned_of(cores, monkeypatch, busy, threads, warnings, caplog):
    cores[:] = busy
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    environment = {}
    waiting.wait_as_others_allow(environment, too_late=True)
    assert environment == {}  # OpenMP would not read it any more
    assert caplog.text.count("torch was imported before anything of cascade") == warnings


def test_a_loop_beside_is_seen():
    """On cores that others keep busy, too, none is idle either way."""
    cores = waiting._cores()
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in cores]
    try:
        time.sleep(0.3)
        assert waiting._idle(cores) < 0.5 * len(cores)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@pytest.mark.skipif(len(waiting._cores()) < 2, reason="one core has nobody to wait for")
@pytest.mark.parametrize(("first", "number"), [("", 1), ("import torch; ", 0)])
def test_a_public_name_chooses_unless_torch_is_there(first, number):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OMP", "GOMP", "KMP"))}
    code = f"{first}import os, cascade; cascade.SketchSettings; print(sum(n in os.environ for n in {waiting._KNOWN}))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(done.stdout) == number


def test_public_names_look_once_and_say_whether_it_is_too_late():
    code = (
        "import cascade, cascade.waiting as w; seen = []; w.wait_as_others_allow = lambda **found: seen.append(found); "
        "{}cascade.Grid, cascade.Volume; print(seen)"
    )
    for first, late in (("", False), ("import torch; ", True)):
        done = subprocess.run([sys.executable, "-c", code.format(first)], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str([{"too_late": late}])


def test_help_does_not_look(monkeypatch, capsys):
    from cascade import __main__

    monkeypatch.setattr(sys, "argv", ["cascade", "--help"])
    monkeypatch.setattr(__main__, "end_in_one_line", lambda: None)
    monkeypatch.setattr(waiting, "_idle", lambda cores: pytest.fail("it takes a tenth of a second"))
    assert __main__.main() == 0
