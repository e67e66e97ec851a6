"""Learning from arrays: what is written for `fit`, what is told meanwhile, and how it ends."""

import json
from dataclasses import replace

import numpy as np
import psutil
import pytest
from conftest import ball_stack, field_of_view

from cascade.commands import fit_arrays as module
from cascade.commands.fit_arrays import FitState, fit_arrays, fit_words
from cascade.commands.options import Flags
from cascade.commands.settings import FitSettings
from cascade.data.frames import find_frames

NO_TRAINING = ("mask", "texture", "assemble", "generate")


def planned(folder, spacing_um=(0.5, 0.5), **fields):
    return FitSettings(folder / "annotated", output_dir=folder / "out", spacing_um=spacing_um, **fields)


@pytest.fixture
def planes():
    rng = np.random.default_rng(0)
    pairs = [field_of_view(rng) for _ in range(2)]
    return [image for image, _ in pairs], [labels.astype(np.int64) for _, labels in pairs]


@pytest.fixture
def asked(monkeypatch):
    """What would have been run."""
    calls = []
    monkeypatch.setattr(module, "run_child", lambda name, options, **_: calls.append([name, *options]) or 0)
    return calls


def test_planes_are_read_back_as_they_were(planes, asked, tmp_path):
    images, labels = planes
    labels = [labels[0], np.zeros_like(labels[1])]  # an image that nobody has annotated
    plan = planned(tmp_path)
    assert fit_arrays([images[0], images[1].astype(float)], labels, plan) == tmp_path / "out" / "model"
    assert asked == [fit_words(plan)]
    (frame,), bare = find_frames(plan.source)
    np.testing.assert_array_equal(frame.image(), images[0])
    np.testing.assert_array_equal(frame.labels(), labels[0])
    assert bare == 1
    before = {path: path.stat().st_mtime_ns for path in plan.source.rglob("*.tif")}
    fit_arrays([images[0], images[1].astype(float)], labels, plan)
    assert before == {path: path.stat().st_mtime_ns for path in plan.source.rglob("*.tif")}
    with pytest.raises(ValueError, match="holds other images or labels"):
        fit_arrays(images[::-1], labels, plan)
    assert len(asked) == 2


def test_sparse_labels_of_a_stack_are_single_slices(asked, tmp_path):
    image, labels = ball_stack(np.random.default_rng(1))
    sparse = np.zeros_like(labels)
    sparse[[7, 15]] = labels[[7, 15]]
    plan = planned(tmp_path, (2.0, 1.0, 1.0), sparse=True)
    fit_arrays([image], [sparse], plan)
    frames, _ = find_frames(plan.source)
    assert [frame.z for frame in frames] == [7, 15]
    for frame in frames:
        np.testing.assert_array_equal(frame.image(), image)
        np.testing.assert_array_equal(frame.labels(), labels[frame.z])
    whole = replace(plan, sparse=False, source=tmp_path / "whole")
    fit_arrays([image], [labels], whole)
    (frame,), _ = find_frames(whole.source)
    assert frame.z is None
    np.testing.assert_array_equal(frame.labels(), labels)


def test_arrays_that_cannot_be_learned_from_are_refused(planes, asked, tmp_path):
    images, labels = planes
    plan = planned(tmp_path)
    for wrong, message in (
        (([], [], plan), "0 images and 0 labels"),
        ((images, labels[:1], plan), "2 images and 1 labels"),
        (([images[0][None, None]], labels[:1], plan), r"4 axes \(1, 1, 160, 160\)"),
        (([images[0], np.stack(images)], [labels[0], np.stack(labels)], plan), "3 axes"),
        ((images[:1], [labels[0][:-1]], plan), r"shape \(159, 160\), their image \(160, 160\)"),
        ((images[:1], [labels[0] > 0], plan), "whole numbers from 0, one for each cell, got bool"),
        ((images[:1], [-labels[0]], plan), "whole numbers from 0"),
        ((images[:1], [np.zeros_like(labels[0])], plan), "hold no cell"),
        ((images, labels, replace(plan, spacing_um=())), r"spacing_um must be the voxel size y x"),
        ((images, labels, replace(plan, simulate="nuclei")), "simulate goes without labels"),
    ):
        with pytest.raises(ValueError, match=message):
            fit_arrays(*wrong)
    assert not asked
    assert not plan.source.exists()


def test_the_command_is_the_plan(tmp_path):
    plan = planned(tmp_path, sparse=True, budget=2.5, skip=NO_TRAINING, crop_size=32, licence="CC0, by me")
    assert Flags("fit", "", (FitSettings,)).parse(fit_words(plan)[2:]) == [plan]


def test_it_is_told_how_far_it_is(tmp_path):
    plan = planned(tmp_path)
    assert module._state(plan, []) == FitState()
    assert module._state(plan, ["plan: prepare, mask"]) == FitState(said="plan: prepare, mask")
    printed = ["plan: …", "[1/4] prepare", "[2/4] mask"]
    assert module._state(plan, printed) == FitState("mask", 2, 4, None, "[2/4] mask")  # the trial tells how long
    stage = plan.output_dir / "stages" / "mask"
    stage.mkdir(parents=True)
    (plan.output_dir / "fit.json").write_text(json.dumps({"train_steps": {"mask": 200}}))
    assert module._state(plan, printed).share == 0
    (stage / "log.jsonl").write_text('{"step": 10, "loss": 1.0}\n{"step": 50, "loss": 0.5}\n{"ste')
    assert module._state(plan, [*printed, "look at it"]) == FitState("mask", 2, 4, 0.25, "look at it")


def test_mistakes_are_what_was_said(tmp_path):
    said = module._mistake(["[1/4] prepare", "cascade fit: x.tif: all pixels are 7"])
    assert isinstance(said, ValueError)
    assert str(said) == "x.tif: all pixels are 7"
    above = "cascade fit: cascade.training.train_mask_ddpm stopped: its message is above; the same command goes on"
    assert str(module._mistake(["train_mask_ddpm: not enough memory", above])) == "train_mask_ddpm: not enough memory"
    assert isinstance(module._mistake(["Traceback …", "KeyError: 'x'"]), RuntimeError)
    assert isinstance(module._mistake([]), RuntimeError)


def test_a_process_learns_is_stopped_and_goes_on(planes, tmp_path):
    images, labels = planes
    plan = planned(tmp_path, skip=NO_TRAINING)
    states = []

    class Enough(Exception):
        pass

    def stop(state):
        states.append(state)
        if state.step:
            raise Enough

    with pytest.raises(Enough):
        fit_arrays(images, labels, plan, tell=stop)
    assert states[0] == FitState()
    assert (states[-1].step, states[-1].number, states[-1].of) == ("prepare", 1, 1)
    assert not [one for one in psutil.Process().children(recursive=True) if "fit" in one.cmdline()]
    states.clear()
    fit_arrays(images, labels, plan, tell=states.append)
    assert states[-1].step == "prepare"
    assert (plan.output_dir / "crops" / "statistics.json").is_file()
    assert json.loads((plan.output_dir / "fit.json").read_text())["done"] == ["prepare"]
