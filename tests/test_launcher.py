import os
import subprocess
import sys

import pytest
import torch

from cascade.commands import launch
from cascade.commands.launch import share_threads


def test_processes_share_the_threads_that_torch_would_use(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 12)
    for processes, threads in ((1, "12"), (3, "4"), (100, "1")):
        monkeypatch.setattr(launch, "_processes", lambda n=processes: n)
        environment = {}
        share_threads(environment)
        assert environment == {"OMP_NUM_THREADS": threads}
    given = {"OMP_NUM_THREADS": "2"}
    share_threads(given)
    assert given == {"OMP_NUM_THREADS": "2"}


@pytest.mark.parametrize(("config", "processes"), [(None, 1), (4, 4)])
def test_as_many_processes_as_accelerate_is_set_up_for(tmp_path, monkeypatch, config, processes):
    from accelerate.commands.config import config_args

    file = tmp_path / "default_config.yaml"
    if config:
        file.write_text(f"compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_CPU\nnum_processes: {config}\n")
    for name in ("default_config_file", "default_yaml_config_file"):
        monkeypatch.setattr(config_args, name, str(file))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert launch._processes() == processes


def test_a_launched_process_has_all_threads(tmp_path):
    (tmp_path / "told.py").write_text("import os\nprint('threads', os.environ['OMP_NUM_THREADS'])\n")
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment |= {"PYTHONPATH": str(tmp_path), "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "cascade.commands.launch", "--quiet", "-m", "told"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    threads = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.get_num_threads())"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.split() == ["threads", threads.stdout.strip()]
