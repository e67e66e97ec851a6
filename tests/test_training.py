import json
import logging

import numpy as np
import pytest
import torch
from toy_training import Line, train

from cascade.training import train_mask_ddpm
from cascade.training.checkpoints import CheckpointError
from cascade.training.loop import TrainingDiverged, _same


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_restart_changes_nothing(tmp_path, accumulation):
    whole, _ = train(tmp_path / "whole", gradient_accumulation_steps=accumulation)
    train(tmp_path / "cut", stop_after=19, gradient_accumulation_steps=accumulation)
    rest, steps = train(tmp_path / "cut", resume_from_checkpoint="latest", gradient_accumulation_steps=accumulation)
    assert steps[0].number == 17  # the last checkpoint was at 16
    assert rest.seen == whole.seen[16 * accumulation :]
    assert rest.noise == whole.noise[16 * accumulation :]
    assert torch.equal(rest.layer.weight, whole.layer.weight)  # the averaged weights
    one, two = (sorted((tmp_path / run / "checkpoint-24").iterdir()) for run in ("whole", "cut"))
    assert [p.name for p in one] == [p.name for p in two]
    assert {p.suffix for p in one} == {".safetensors", ".json"}
    for a, b in zip(one, two, strict=True):
        if a.suffix == ".safetensors":
            assert a.read_bytes() == b.read_bytes()


def test_weights_are_those_of_the_optimiser_itself(tmp_path):
    """The loop against the same steps written out with torch alone."""
    from diffusers.optimization import get_scheduler
    from toy_training import Regression

    ours, _ = train(tmp_path, use_ema=False, max_train_steps=12, max_grad_norm=0.5)
    theirs, data = Regression(), Line()
    optimizer = torch.optim.AdamW(theirs.parameters(), lr=0.05, weight_decay=0.0)
    schedule = get_scheduler("cosine", optimizer, num_warmup_steps=4, num_training_steps=12)
    for indices, noise in zip(ours.seen, ours.noise, strict=True):
        batch = data[indices]
        loss = (theirs.layer(batch["x"]) - batch["y"]).square().mean() + 0.01 * noise * theirs.layer.bias.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    assert torch.equal(ours.layer.weight, theirs.layer.weight)
    assert torch.equal(ours.layer.bias, theirs.layer.bias)


def test_optimisers_for_small_memory(tmp_path):
    module, _ = train(tmp_path / "a", optimizer="adafactor", max_train_steps=400)
    assert module.layer.weight.item() == pytest.approx(3, abs=0.3)
    whole, _ = train(tmp_path / "whole", optimizer="adafactor")
    train(tmp_path / "cut", optimizer="adafactor", stop_after=10)
    rest, _ = train(tmp_path / "cut", optimizer="adafactor", resume_from_checkpoint="latest")
    assert torch.equal(rest.layer.weight, whole.layer.weight)
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
    from safetensors.torch import load_file

    with pytest.raises(TrainingDiverged, match=r"nan at step \d+, on samples \[.*13.*\]"):
        train(tmp_path, dataset=Line(spoilt=True), checkpointing_steps=1)
    for checkpoint in tmp_path.glob("checkpoint-*"):
        for name in ("network", "network_moments", "network_average"):
            assert all(torch.isfinite(v).all() for v in load_file(checkpoint / f"{name}.safetensors").values())


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
    (tmp_path / "finished" / "model_index.json").write_text("{}")  # of a run whose checkpoints were removed
    for resume in ([], ["--resume_from_checkpoint", "latest"]):
        with pytest.raises(FileExistsError, match=r"finished, and no checkpoint of it: name another .*--base_model"):
            train_mask_ddpm.main(["--data", "crops", "--output_dir", str(tmp_path / "finished"), *resume])
    train(tmp_path, resume_from_checkpoint="latest", preview_steps=6)
    assert not caplog.records
    train(tmp_path, resume_from_checkpoint="latest", max_train_steps=25, learning_rate=0.01)
    assert "--learning_rate 0.01, where it was 0.05" in caplog.text


def test_a_new_learning_rate_holds_after_a_restart(tmp_path):
    train(tmp_path, stop_after=8, lr_scheduler="constant")
    train(tmp_path, resume_from_checkpoint="latest", lr_scheduler="constant", learning_rate=0.01)
    rates = [json.loads(line)["learning_rate"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rates == [0.05] * 2 + [0.01] * 4


def test_a_log_tells_of_no_step_twice(tmp_path):
    train(tmp_path, stop_after=14)  # two steps beyond the last log, six beyond the last checkpoint
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 16, "lo')  # killed while it wrote
    train(tmp_path, resume_from_checkpoint="latest")
    steps = [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [4, 8, 12, 16, 20, 24]


def test_fewer_steps_than_are_done_are_refused_and_lose_nothing(tmp_path):
    train(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(
        CheckpointError, match="checkpoint-24: has 24 steps, and max_train_steps is 8: ask for more, or"
    ):
        train(tmp_path, resume_from_checkpoint="latest", max_train_steps=8)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    _, steps = train(tmp_path, resume_from_checkpoint=str(tmp_path / "checkpoint-16"), max_train_steps=16)
    assert [step.number for step in steps] == [16]


def test_settings_that_nothing_was_trained_with_are_refused(tmp_path):
    train(tmp_path)
    before = (tmp_path / "training_config.json").read_bytes()
    with pytest.raises(
        CheckpointError, match=r"checkpoint-24: is finished, .*learning_rate 0.05, now it is 0.01: give"
    ):
        train(tmp_path, resume_from_checkpoint="latest", learning_rate=0.01)
    assert (tmp_path / "training_config.json").read_bytes() == before
    train(tmp_path, resume_from_checkpoint="latest", logging_steps=2, push_to_hub=True)  # which teach nothing


def test_a_folder_that_is_called_otherwise_is_the_same_setting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert _same(str(tmp_path / "base"), "base")
    assert not _same(str(tmp_path / "base"), "other")
    assert not _same(0.1, 0.2)
