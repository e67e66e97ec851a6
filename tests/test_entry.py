"""How commands end: exit codes, single lines, signals, output that cannot be written."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tqdm.auto import tqdm

from cascade.commands.cli import STAGES, main
from cascade.entry import UsageError, exit_code, processes
from cascade.hub.embedded import embedded

GENERATE = [sys.executable, "-m", "cascade", "generate", "--output_dir"]


def raising(error):
    def function():
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ValueError("wrong"), 1, "x: wrong"),
        (FileNotFoundError("no file"), 1, "x: no file"),
        (ImportError("no package"), 1, "x: no package"),
        (UsageError("no flag"), 2, "x: no flag"),
        (MemoryError(), 1, "x: not enough memory: take less (MemoryError)"),
        (
            torch.OutOfMemoryError("CUDA out of memory.\nTried"),
            1,
            "x: not enough memory: take less (CUDA out of memory.)",
        ),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "x: not enough memory: take less"),
        (KeyboardInterrupt(), 130, "x: interrupted: all is kept"),
    ],
)
def test_every_end_has_a_code_and_a_line(error, code, said, capsys):
    assert exit_code(raising(error), "x", kept="all is kept", smaller="take less") == code
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_the_message_has_a_line_of_its_own(capsys):
    def function():
        bar = tqdm(total=3)
        for _ in tqdm(range(2)):
            bar.update()
            raise ValueError("wrong")

    assert exit_code(function, "x") == 1
    assert capsys.readouterr().err.endswith("\nx: wrong\n")


def test_our_own_mistakes_keep_their_traceback():
    with pytest.raises(KeyError):
        exit_code(lambda: {}["key"], "x")
    with pytest.raises(RuntimeError, match="must match the size"):  # of torch's, for which no user can do anything
        exit_code(lambda: torch.zeros(2) + torch.zeros(3), "x")


def test_a_signal_is_not_lost_in_foreign_code(capsys):
    def function():
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException as error:
            raise ImportError("foreign code failed") from error

    before = signal.getsignal(signal.SIGINT)
    assert exit_code(function, "x", kept="all is kept") == 143
    assert capsys.readouterr().err == "x: terminated: all is kept\n"
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_go_without_signals():
    codes = []
    thread = threading.Thread(target=lambda: codes.append(exit_code(lambda: None, "x")))
    thread.start()
    thread.join()
    assert codes == [0]


def test_warnings_are_shown_to_those_who_ask(monkeypatch):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        monkeypatch.setattr(sys, "warnoptions", [])
        exit_code(lambda: warnings.warn("old", FutureWarning, stacklevel=1), "x")
        assert not seen
        monkeypatch.setattr(sys, "warnoptions", ["always"])
        exit_code(lambda: warnings.warn("old", FutureWarning, stacklevel=1), "x")
        assert len(seen) == 1


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "abc"}, "RANK=abc: set it to a whole number"),
        ({"WORLD_SIZE": "0"}, "RANK=0 and WORLD_SIZE=0"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 and WORLD_SIZE=2"),
        ({"LOCAL_RANK": "-1"}, "LOCAL_RANK=-1"),
    ],
)
def test_numbers_of_processes_that_cannot_be_are_named(environment, message, monkeypatch, tmp_path, capsys):
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    with pytest.raises(ValueError, match=message):
        processes()
    assert main(["generate", "--output_dir", str(tmp_path / "set")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "tpu", "meta"])
def test_a_device_that_is_not_there_is_said_before_anything_is_made(device, tmp_path, capsys):
    assert main(["generate", "--output_dir", str(tmp_path / "set"), "--device", device]) == 1
    said = capsys.readouterr().err
    assert said.startswith("cascade generate: --device must be one of cpu")
    assert said.count("\n") == 1
    assert not (tmp_path / "set").exists()


def test_missing_weights_are_told_in_one_line(tmp_path):
    model = shutil.copytree(embedded("nuclei2d"), tmp_path / "model")
    path = model / "mask" / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    del weights["conv_norm_out.weight"]
    save_file(weights, path)
    done = subprocess.run([*GENERATE, str(tmp_path / "set"), "--model", str(model)], capture_output=True, text=True)
    *before, last = done.stderr.splitlines()
    assert done.returncode == 1
    assert last == f"cascade generate: {path}: conv_norm_out.weight is missing; copy the model again, or train it"
    assert all(line.startswith("generating: ") for line in before if line)


def catches_sigterm(pid):
    """Whether a process has come as far as this package's first lines: Python itself catches SIGINT only."""
    status = Path(f"/proc/{pid}/status").read_text().split("SigCgt:")[1].split()[0]
    return int(status, 16) >> (signal.SIGTERM - 1) & 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to see how far a process is")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_one_line_whatever_is_being_imported(number, tmp_path):
    for moment in (0, 0.05, 0.2, 0.6, 1.5):
        with subprocess.Popen([*GENERATE, str(tmp_path / "set")], stderr=subprocess.PIPE, text=True) as process:
            while not catches_sigterm(process.pid):
                time.sleep(0.002)
            time.sleep(moment)
            process.send_signal(number)
            said = process.communicate()[1]
        assert process.returncode == 128 + number, (moment, said)
        assert said.startswith("cascade")
        assert said.count("\n") == 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc to see how far a process is")
@pytest.mark.parametrize("stage", STAGES.values())
def test_a_training_script_by_itself_ends_as_well(stage, tmp_path):
    script = Path(find_spec("cascade.training").submodule_search_locations[0]) / f"{stage}.py"
    words = ["--data", "crops", "--output_dir", str(tmp_path / "stage")]
    with subprocess.Popen([sys.executable, str(script), *words], stderr=subprocess.PIPE, text=True) as process:
        while not catches_sigterm(process.pid) and process.poll() is None:
            time.sleep(0.002)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        said = process.communicate()[1]
    assert (process.returncode, said) == (130, "cascade: stopped before anything was begun\n")


def test_a_reader_that_leaves_is_no_mistake():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-m", "cascade", "generate", "--help"], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_signs_that_cannot_be_printed_are_replaced():
    given = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    for words, shown in ((["--help"], b"COMMAND ?"), (["prepare", "--help"], b"1 ?m")):
        done = subprocess.run([sys.executable, "-m", "cascade", *words], capture_output=True, env=given)
        assert done.returncode == 0
        assert shown in done.stdout
