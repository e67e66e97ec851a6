import json
import pickle
import resource
from pathlib import Path

import pytest
import torch
from toy_training import Line, Regression, settings, train

from cascade.files import Busy, exclusive
from cascade.training.checkpoints import CheckpointError, load_checkpoint, read_record, save_checkpoint
from cascade.training.loop import training_loop
from cascade.training.script import run
from cascade.training.start import claimed, make_accelerator
from cascade.training.update import Update


class Plant:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["custom_checkpoint_0.pkl", "optimizer.bin", "scheduler.pt", "random_states_0.PKL"])
def test_a_pickle_in_a_checkpoint_is_refused_and_never_opened(tmp_path, name):
    train(tmp_path / "run", stop_after=8)
    planted = tmp_path / "planted"
    (tmp_path / "run" / "checkpoint-8" / name).write_bytes(pickle.dumps(Plant(planted)))
    with pytest.raises(CheckpointError, match=rf"{name}: pickled.*never opened.*train anew"):
        train(tmp_path / "run", resume_from_checkpoint="latest")
    assert not planted.exists()
    pickle.loads((tmp_path / "run" / "checkpoint-8" / name).read_bytes())
    assert planted.exists()  # it would have


@pytest.mark.parametrize("kind", ["cut", "missing"])
@pytest.mark.parametrize(
    "name", ["training_state.json", "network.safetensors", "network_moments.safetensors", "network_average.safetensors"]
)
def test_a_damaged_checkpoint_names_the_file_and_an_older_one(tmp_path, name, kind):
    train(tmp_path, stop_after=16)
    path = tmp_path / "checkpoint-16" / name
    content = path.read_bytes()
    path.unlink() if kind == "missing" else path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=rf"checkpoint-16/{name}.*older checkpoint.*checkpoint-8$"):
        train(tmp_path, resume_from_checkpoint="latest")
    _, steps = train(tmp_path, resume_from_checkpoint=str(tmp_path / "checkpoint-8"))
    assert [step.number for step in steps] == list(range(9, 25))


@pytest.mark.parametrize("content", [b"null", b"[]", b'{"step": "many"}', "{}".encode("utf-16"), b"\xff\xfe\x00"])
def test_a_state_that_says_nothing_is_named(tmp_path, content):
    train(tmp_path, stop_after=8)
    (tmp_path / "checkpoint-8" / "training_state.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"training_state.json.*there is no other: train anew"):
        train(tmp_path, resume_from_checkpoint="latest")


@pytest.mark.parametrize("content", [b'{"seed": ', b"null", "{}".encode("utf-16")])
def test_resuming_does_not_depend_on_the_config_that_is_shown(tmp_path, content):
    train(tmp_path, stop_after=8)
    (tmp_path / "training_config.json").write_bytes(content)
    train(tmp_path, resume_from_checkpoint="latest")
    assert json.loads((tmp_path / "training_config.json").read_text())["max_train_steps"] == 24


def test_what_was_gone_on_with_from_an_older_checkpoint_is_what_is_kept(tmp_path):
    train(tmp_path, checkpoints_total_limit=5)
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-16", "checkpoint-24", "checkpoint-8"]
    older = str(tmp_path / "checkpoint-8")
    train(tmp_path, resume_from_checkpoint=older, checkpointing_steps=3, checkpoints_total_limit=2, stop_after=13)
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == ["checkpoint-12", "checkpoint-9"]
    _, steps = train(tmp_path, resume_from_checkpoint="latest")
    assert steps[0].number == 13


def test_the_average_goes_on_as_it_is_told(tmp_path, caplog):
    train(tmp_path, stop_after=8)
    train(tmp_path, resume_from_checkpoint="latest", ema_decay=0.5)
    (average,) = (part for name, part in read_record(tmp_path / "checkpoint-24")["parts"].items() if "average" in name)
    assert average["dict"]["decay"] == 0.5
    assert "going on with --ema_decay 0.5, where it was 0.9" in caplog.text


@pytest.mark.parametrize(("schedule", "told"), [("linear", True), ("constant", False)])
def test_a_learning_rate_that_jumps_as_training_goes_on_is_told_of(schedule, told, tmp_path, caplog):
    train(tmp_path, max_train_steps=8, lr_scheduler=schedule, learning_rate=0.1)
    train(tmp_path, max_train_steps=24, lr_scheduler=schedule, learning_rate=0.1, resume_from_checkpoint="latest")
    words = "where it was 8: the learning rate of network, which linear sets by it, is 0.08 now, and was to be 0"
    assert (words in caplog.text) == told


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataset": Line(fingerprint="another")}, "other data"),
        ({"module": Regression(width=2)}, r"another network, layer.bias is \(1,\) and would be \(2,\)"),
        ({"identity": {"prediction_type": "epsilon"}}, "prediction_type 'sample', now it is 'epsilon'"),
        ({"seed": 1}, "seed 0, now it is 1"),
        ({"train_batch_size": 5}, "train_batch_size 4, now it is 5"),
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps 1, now it is 2"),
        ({"optimizer": "adafactor"}, "optimizer 'adamw', now it is 'adafactor'"),
        ({"use_ema": False}, "use_ema True, now it is False"),
    ],
)
def test_another_training_is_not_gone_on_with(tmp_path, changes, words):
    same = {"identity": {"prediction_type": "sample"}}
    train(tmp_path, stop_after=8, **same)
    before = (tmp_path / "training_config.json").read_bytes()
    with pytest.raises(CheckpointError, match=words):
        train(tmp_path, resume_from_checkpoint="latest", **(same | changes))
    assert (tmp_path / "training_config.json").read_bytes() == before
    train(tmp_path, resume_from_checkpoint="latest", **same)


def test_another_number_of_processes_would_see_other_samples(tmp_path, monkeypatch):
    train(tmp_path, stop_after=8)
    monkeypatch.setattr("accelerate.Accelerator.num_processes", 2)
    with pytest.raises(CheckpointError, match="processes 1, now it is 2: give the same"):
        train(tmp_path, resume_from_checkpoint="latest")


def test_a_checkpoint_that_does_not_tell_of_processes_is_gone_on_with(tmp_path):
    train(tmp_path, stop_after=8)
    path = tmp_path / "checkpoint-8" / "training_state.json"
    record = json.loads(path.read_text())
    del record["identity"]["processes"]  # as earlier versions
    path.write_text(json.dumps(record))
    _, steps = train(tmp_path, resume_from_checkpoint="latest", checkpoints_total_limit=1)
    assert steps[0].number == 9
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-24"]  # it was of this training, too


def test_what_is_no_checkpoint_of_this_training_stays(tmp_path, caplog):
    train(tmp_path, stop_after=8)
    for name in ("checkpoint-1", "checkpoint-16", "checkpoint-500"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.npy").write_bytes(b"of someone")
    train(tmp_path / "other", dataset=Line(fingerprint="another"), stop_after=8)
    (tmp_path / "other" / "checkpoint-8").rename(tmp_path / "checkpoint-400")
    train(tmp_path, resume_from_checkpoint=str(tmp_path / "checkpoint-8"), checkpoints_total_limit=1)
    kept = ["checkpoint-1", "checkpoint-16-before", "checkpoint-24", "checkpoint-400", "checkpoint-500"]
    assert sorted(p.name for p in tmp_path.glob("checkpoint-*")) == kept
    for name in ("checkpoint-1", "checkpoint-16-before", "checkpoint-500"):
        assert (tmp_path / name / "weights.npy").read_bytes() == b"of someone"
    assert "checkpoint-16 is no checkpoint of this training: what it held is now in" in caplog.text


@pytest.mark.parametrize("finished", [False, True])
def test_another_trainings_folder_is_not_gone_on_into(tmp_path, finished):
    train(tmp_path / "a", stop_after=8)
    checkpoint = str(tmp_path / "a" / "checkpoint-8")
    if finished:
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "model_index.json").write_text("{}")
    else:
        train(tmp_path / "b", stop_after=16)
    before = {path: path.read_bytes() for path in (tmp_path / "b").rglob("*") if path.is_file()}
    with pytest.raises(FileExistsError, match=r"b: holds a training, and not that of .*checkpoint-8: name the"):
        train(tmp_path / "b", resume_from_checkpoint=checkpoint)
    assert {path: path.read_bytes() for path in (tmp_path / "b").rglob("*") if path.is_file()} == before
    _, steps = train(tmp_path / "c", resume_from_checkpoint=checkpoint)
    assert steps[0].number == 9


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path):
    options = settings(tmp_path, preview_steps=24)
    loop = training_loop([Update(loss=Regression(width=2000))], Line(), options, make_accelerator(options))
    next(step for step in loop if step.number == 8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))  # as if the disk were full
    try:
        with pytest.raises(OSError, match=r"cannot be written|File too large"):
            list(loop)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-8"]
    _, steps = train(tmp_path, module=Regression(width=2000), resume_from_checkpoint="latest")
    assert steps[0].number == 9
    assert not list(tmp_path.glob("partial-*"))


class Kept:
    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def test_any_state_comes_back_as_it_was(tmp_path):
    shared = torch.arange(6.0)
    state = {
        "a": {"tensor": torch.ones(2, 3).T, "dict": [1, 0.1, None, "x", True]},
        "b": [shared[:4], shared[2:], torch.tensor(3)],
        "half": torch.ones(2).bfloat16(),
        "infinite": float("inf"),
    }
    part = Kept(state)
    folder = save_checkpoint(tmp_path, {"note": "x"}, {"part": part}, step=3, limit=1)
    loaded = Kept(None)
    record = read_record(folder)
    load_checkpoint(folder, record, {"part": loaded})
    assert (record["step"], record["note"]) == (3, "x")
    assert str(loaded.state) == str(state)
    for bad in ({"a": object()}, {1: 2}):
        with pytest.raises(TypeError):
            save_checkpoint(tmp_path, {}, {"part": Kept(bad)}, step=4, limit=1)
    assert folder.is_dir()


def test_a_folder_has_one_training_at_a_time(tmp_path):
    with claimed(settings(tmp_path / "run")) as output:
        assert output == tmp_path / "run"
        with pytest.raises(Busy, match=r"run: .*at work"), claimed(settings(tmp_path / "run")):
            pass
        with claimed(settings(tmp_path / "other")):
            pass
    with claimed(settings(tmp_path / "run")), pytest.raises(Busy), exclusive(tmp_path / "run", "another"):
        pass


@pytest.mark.parametrize(("steps", "words"), [(9, "checkpoint-8; the same command with"), (3, "nothing was kept")])
def test_ctrl_c_says_what_was_kept(tmp_path, capsys, steps, words):
    def main(argv):
        options = settings(tmp_path)
        with claimed(options):
            train(tmp_path, stop_after=steps)
            raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stopped:
        run(main)
    assert stopped.value.code == 130
    said = capsys.readouterr().err.replace("\r", "\n").splitlines()[-1]
    assert words in said
    assert "Traceback" not in said
