import json
import logging

import numpy as np
import pytest
import torch

from cascade.training import train_mask_ddpm
from cascade.training.loop import TrainingDiverged, TrainingSettings, make_accelerator, training_loop


class Line(torch.utils.data.Dataset):
    """y = 3x − 1; sample 13 can be spoilt."""

    def __init__(self, spoilt=False):
        self.x = torch.linspace(-1, 1, 40)[:, None]
        self.y = 3 * self.x - 1
        if spoilt:
            self.y[13] = float("nan")

    def __len__(self):
        return 40

    def __getitem__(self, indices):
        return {"x": self.x[indices], "y": self.y[indices], "i": torch.as_tensor(indices)}


class Regression(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(1, 1)
        self.seen, self.noise = [], []

    def forward(self, batch, generator):
        self.seen.append(batch["i"].tolist())
        self.noise.append(torch.randn(1, generator=generator).item())
        return (self.layer(batch["x"]) - batch["y"]).square().mean() + 0.01 * self.noise[-1] * self.layer.bias.sum()


def settings(folder, **changes):
    options = dict(
        output_dir=str(folder), max_train_steps=24, train_batch_size=4, learning_rate=0.05, lr_warmup_steps=4,
        checkpointing_steps=8, preview_steps=12, ema_decay=0.9, report_to="none", logging_steps=4,
    )  # fmt: skip
    return TrainingSettings(**(options | changes))


def train(folder, stop_after=None, dataset=None, **changes):
    module = Regression()
    options = settings(folder, **changes)
    steps = []
    for step in training_loop(module, dataset or Line(), options, make_accelerator(options)):
        steps.append(step)
        if step.number == stop_after:
            break
    return module, steps


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_restart_changes_nothing(tmp_path, accumulation):
    whole, _ = train(tmp_path / "whole", gradient_accumulation_steps=accumulation)
    train(tmp_path / "cut", stop_after=19, gradient_accumulation_steps=accumulation)
    rest, steps = train(tmp_path / "cut", resume_from_checkpoint="latest", gradient_accumulation_steps=accumulation)
    assert steps[0].number == 17  # the last checkpoint was at 16
    assert rest.seen == whole.seen[16 * accumulation :]
    assert rest.noise == whole.noise[16 * accumulation :]
    assert torch.equal(rest.layer.weight, whole.layer.weight)  # the averaged weights
    for name in ("model.safetensors", "optimizer.bin", "custom_checkpoint_0.pkl", "custom_checkpoint_1.pkl"):
        one, two = ((tmp_path / run / "checkpoint-24" / name) for run in ("whole", "cut"))
        if name.endswith("safetensors"):
            assert one.read_bytes() == two.read_bytes()
        else:
            a, b = (torch.load(path, weights_only=False) for path in (one, two))
            assert str(a) == str(b)


def test_optimisers_for_small_memory(tmp_path):
    module, _ = train(tmp_path / "a", optimizer="adafactor", max_train_steps=400)
    assert module.layer.weight.item() == pytest.approx(3, abs=0.3)
    with pytest.raises(ValueError, match="adamw, adamw8bit or adafactor, not 'sgd'"):
        train(tmp_path / "b", optimizer="sgd")
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        with pytest.raises(ValueError, match="pip install bitsandbytes"):
            train(tmp_path / "c", optimizer="adamw8bit")


def test_it_learns_and_ends_with_the_average(tmp_path):
    module, steps = train(tmp_path, max_train_steps=300)
    assert module.layer.weight.item() == pytest.approx(3, abs=0.1)
    assert module.layer.bias.item() == pytest.approx(-1, abs=0.1)
    assert [s.number for s in steps if s.preview] == list(range(12, 301, 12))
    assert [s.number for s in steps if s.last] == [300]
    kept = sorted(p.name for p in tmp_path.glob("checkpoint-*"))
    assert kept == ["checkpoint-296", "checkpoint-300"]
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 300
    assert log[-1]["loss"] < log[0]["loss"]
    assert json.loads((tmp_path / "training_config.json").read_text())["learning_rate"] == 0.05


def test_every_sample_is_seen_once_an_epoch(tmp_path):
    module, _ = train(tmp_path, max_train_steps=20)
    seen = np.concatenate(module.seen)
    assert sorted(seen[:40]) == sorted(seen[40:]) == list(range(40))
    assert list(seen[:40]) != list(seen[40:])


def test_a_loss_that_is_no_number_stops_and_names_the_batch(tmp_path):
    with pytest.raises(TrainingDiverged, match=r"nan at step \d+, on samples \[.*13.*\]"):
        train(tmp_path, dataset=Line(spoilt=True), checkpointing_steps=1)
    for checkpoint in tmp_path.glob("checkpoint-*"):
        state = torch.load(checkpoint / "optimizer.bin", weights_only=True)
        assert all(torch.isfinite(v).all() for s in state["state"].values() for v in s.values())


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path, monkeypatch):
    from accelerate import Accelerator

    original = Accelerator.save_state

    def disk_full(self, folder, *args, **kwargs):
        if folder.endswith("-16"):
            raise OSError(28, "No space left on device")
        return original(self, folder, *args, **kwargs)

    monkeypatch.setattr(Accelerator, "save_state", disk_full)
    with pytest.raises(OSError, match="No space left"):
        train(tmp_path)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.glob("checkpoint-*")] == ["checkpoint-8"]
    _, steps = train(tmp_path, resume_from_checkpoint="latest")
    assert steps[0].number == 9


def test_resuming_needs_a_checkpoint(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        train(tmp_path / "a", resume_from_checkpoint="latest", max_train_steps=1)
    assert "starting from the beginning" in caplog.text
    with pytest.raises(FileNotFoundError, match="is no checkpoint"):
        train(tmp_path / "b", resume_from_checkpoint=str(tmp_path / "nothing"))
    module, steps = train(tmp_path / "a", resume_from_checkpoint="latest", max_train_steps=1)
    assert [s.last for s in steps] == [True]
    assert not module.seen


def test_a_training_is_not_written_over(tmp_path, caplog):
    train(tmp_path, stop_after=8)
    with pytest.raises(FileExistsError, match="--resume_from_checkpoint latest goes on with it"):
        train(tmp_path)
    (tmp_path / "finished").mkdir()
    (tmp_path / "finished" / "model_index.json").write_text("{}")  # of a run too short for a checkpoint
    with pytest.raises(FileExistsError, match="holds a training"):
        train_mask_ddpm.main(["--data", "crops", "--output_dir", str(tmp_path / "finished")])
    train(tmp_path, resume_from_checkpoint="latest", preview_steps=6)
    assert not caplog.records
    train(tmp_path, resume_from_checkpoint="latest", learning_rate=0.01)
    assert "--learning_rate 0.01, where it was 0.05" in caplog.text


def test_a_log_tells_of_no_step_twice(tmp_path):
    train(tmp_path, stop_after=14)  # two steps beyond the last log, six beyond the last checkpoint
    train(tmp_path, resume_from_checkpoint="latest")
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [4, 8, 12, 16, 20, 24]
