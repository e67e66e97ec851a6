import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from cascade.commands import fit as module
from cascade.commands.fit import fit
from cascade.commands.settings import FitSettings

SLEEPER = "import os, pathlib, sys, time\npathlib.Path(sys.argv[1]).write_text(str(os.getpid()))\ntime.sleep(60)\n"
ASKER = (
    "import sys, os, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored where pytest is
    "from cascade.commands.child import run_child\n"
    "try:\n    run_child('sleeper', [sys.argv[1]], launched=sys.argv[2] == 'launched')\n"
    "except KeyboardInterrupt:\n    sys.exit(130)\n"
)


def is_alive(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def patiently(condition, seconds=60.0):
    end = time.time() + seconds
    while not condition():
        assert time.time() < end
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("how", "way"), [(signal.SIGKILL, "alone"), (signal.SIGINT, "alone"), (signal.SIGKILL, "launched")]
)
def test_what_a_process_asked_for_ends_with_it(tmp_path, how, way):
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    said = tmp_path / "pid"
    asker = subprocess.Popen(
        [sys.executable, "-c", ASKER, str(said), way],
        env=os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
    )
    patiently(lambda: said.is_file() and said.read_text())
    pid = int(said.read_text())
    assert is_alive(pid)
    asker.send_signal(how)
    code = asker.wait(20)
    assert code == (130 if how == signal.SIGINT else -9)
    patiently(lambda: not is_alive(pid), 5.0)


def test_the_same_plan_however_its_folders_are_written(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_DO", {name: lambda *_: None for name in module.STEPS})
    monkeypatch.chdir(tmp_path)
    for name in ("images", "base/texture"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(module, "base_model_folder", lambda path: path)
    fit(FitSettings(tmp_path / "images", output_dir=tmp_path / "out", base_model="base"))
    fit(FitSettings("images/../images", output_dir="out", base_model=str(tmp_path / "base")))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    fit(FitSettings("../images", output_dir="../out", base_model="../base"))
    with pytest.raises(ValueError, match=r"another plan \(other base_model\)"):
        fit(FitSettings("../images", output_dir="../out", base_model="nuclei2d"))
    for source, output in (("../images", "../images"), ("../images", "../images/01/out")):
        with pytest.raises(ValueError, match="is where the images are read from"):
            fit(FitSettings(source, output_dir=output, base_model="nuclei2d"))


@pytest.mark.parametrize("text", ["", "null", "{", '{"plan": 3}', '{"plan": {}, "done": null, "train_steps": {}}'])
def test_a_broken_plan_is_named_with_the_mend(tmp_path, text):
    (tmp_path / "fit.json").write_text(text)
    with pytest.raises(ValueError, match=r"fit.json: .*; restore it, or begin anew in another folder"):
        fit(FitSettings("images", output_dir=tmp_path, base_model="nuclei2d"))
    assert (tmp_path / "fit.json").read_text() == text


def test_what_earlier_versions_remember_is_gone_on_with(monkeypatch, tmp_path):
    did = []
    monkeypatch.setattr(module, "_DO", {name: lambda *_, name=name: did.append(name) for name in module.STEPS})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "out").mkdir()
    settings = FitSettings("images", output_dir="out", base_model="nuclei2d")
    plan = {key: str(value) for key, value in vars(settings).items()}
    plan["budget_minutes"] = plan.pop("budget")
    record = {"plan": plan, "done": ["prepare", "mask", "texture"], "train_steps": {"mask": 50}}
    (tmp_path / "out" / "fit.json").write_text(json.dumps(record))
    fit(FitSettings(tmp_path / "images", output_dir="out", base_model="nuclei2d"))
    assert did == ["assemble", "generate"]
