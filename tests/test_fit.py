import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import ball_stack, write_ctc_2d

from cascade import embedded
from cascade.commands import fit as module
from cascade.commands.cli import main
from cascade.commands.fit import STEPS, fit, usual_base
from cascade.commands.settings import FitSettings
from cascade.evaluation import experiment, segmenters
from cascade.evaluation.settings import EvaluateSettings


def planned(output_dir, source="images", base_model="nuclei2d", **fields):
    return FitSettings(source, output_dir=output_dir, base_model=base_model, **fields)


@pytest.fixture
def did(monkeypatch):
    calls = []

    def step(name):
        def do(plan, output, state):
            calls.append(name)
            if calls.count(name) == 1 and name == "texture":
                raise KeyboardInterrupt

        return do

    monkeypatch.setattr(module, "_DO", {name: step(name) for name in STEPS})
    monkeypatch.setattr(module, "_check_test", lambda plan, test: None)
    return calls


def test_it_goes_on_where_it_was_and_skips_what_it_is_told(did, tmp_path):
    plan = planned(tmp_path, skip=("generate",), test="t")
    with pytest.raises(KeyboardInterrupt):
        fit(plan)
    assert did == ["prepare", "mask", "texture"]
    fit(plan)
    assert did == ["prepare", "mask", "texture", "texture", "assemble", "evaluate"]
    fit(plan)
    assert did[6:] == ["evaluate"]  # which knows itself what is left to do
    with pytest.raises(ValueError, match=r"another plan \(other source\)"):
        fit(planned(tmp_path, "other images"))
    with pytest.raises(ValueError, match=r"other num_images, seed"):
        fit(planned(tmp_path, num_images=5, seed=1))
    with pytest.raises(ValueError, match="minutes above 0"):
        planned(tmp_path / "other", budget=0)
    with pytest.raises(ValueError, match=r"vae/config.json"):
        fit(planned(tmp_path / "other", base_model=str(tmp_path)))
    with pytest.raises(ValueError, match=r"skip must be one of prepare, .*, got cook"):
        planned(tmp_path, skip=("cook",))


def test_the_plan_is_said_and_steps_are_counted_as_planned(did, tmp_path, capsys):
    plan = planned(tmp_path / "out", write_ctc_2d(tmp_path / "images", 1), budget=90, skip=("assemble",))
    with pytest.raises(KeyboardInterrupt):
        fit(plan)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("plan: prepare, mask, texture, generate: about ")
    assert "1 h 30 min of training" in lines[0]
    assert "for 100 images" in lines[0]
    assert lines[1:4] == ["[1/4] prepare", "[2/4] mask", "[3/4] texture"]
    for folder in ("mask/checkpoint-10", "texture/checkpoint-20", "texture/training_decoder/checkpoint-5", "mask/unet"):
        (tmp_path / "out" / "stages" / folder).mkdir(parents=True)
    fit(plan)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("plan: texture, generate: about ")
    assert lines[1:] == ["[3/4] texture", "[4/4] generate"]
    assert not list((tmp_path / "out").rglob("checkpoint-*"))
    assert (tmp_path / "out/stages/mask/unet").is_dir()
    fit(plan)
    assert not capsys.readouterr().err


def test_a_test_that_cannot_be_used_is_refused_before_the_first_step(ctc_sparse_3d, monkeypatch, tmp_path):
    done = []
    monkeypatch.setattr(segmenters, "_major", lambda: 3)
    monkeypatch.setattr(module, "_DO", {name: lambda *_, name=name: done.append(name) for name in STEPS})
    planes = {name: write_ctc_2d(tmp_path / name, 2, seed) for seed, name in enumerate(("train", "test"))}
    plan = planned(tmp_path / "out", planes["train"], test=planes["test"])
    slices = replace(plan, source=ctc_sparse_3d, spacing_um=(2, 1, 1), output_dir=tmp_path / "slices")
    for wrong, message in (
        (replace(plan, test=planes["train"]), "also training images"),
        (replace(plan, test=tmp_path / "nowhere"), "nowhere: no such folder"),
        (replace(plan, test_truth="st"), "choose the other truth, gt"),
        (replace(slices, test=ctc_sparse_3d), "also training images"),
        (replace(slices, test=_other_slices(tmp_path)), r"generated holds stacks.*--test_truth st"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(wrong)
    assert not done
    fit(replace(plan, test=planes["train"], skip=("evaluate",)))
    assert "evaluate" not in done
    done.clear()
    fit(plan)
    assert done == ["evaluate"]  # the rest is done
    monkeypatch.setattr(segmenters, "_major", lambda: 4)
    with pytest.raises(ImportError, match="Cellpose 3 is needed"):
        fit(plan)


def _other_slices(tmp_path):
    image, labels = ball_stack(np.random.default_rng(8))
    for name, array in (("01/t000.tif", image), ("01_GT/SEG/man_seg_000_012.tif", labels[12])):
        (tmp_path / "other" / name).parent.mkdir(parents=True)
        tifffile.imwrite(tmp_path / "other" / name, array)
    return tmp_path / "other"


def test_the_budget_decides_how_long_is_trained(monkeypatch, tmp_path):
    commands = []

    def launch(module, options):
        commands.append((module, options))
        folder = Path(options[options.index("--output_dir") + 1])
        folder.mkdir(parents=True, exist_ok=True)
        rows = [{"seconds_per_step": seconds} for seconds in (9.0, 0.5, 0.6)]  # the first step warms up
        (folder / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))

    monkeypatch.setattr(module, "_launch", launch)
    skip = tuple(set(STEPS) - {"mask"})
    fit(planned(tmp_path, budget=10, skip=skip))
    (_, trial), (module_name, training) = commands
    assert module_name == "cascade.training.train_mask_ddpm"
    assert trial[trial.index("--max_train_steps") + 1] == "4"
    steps = int(training[training.index("--max_train_steps") + 1])
    assert steps == pytest.approx(600 * 0.3 / 0.5, abs=5)  # the trial's own steps are part of it
    assert "--resume_from_checkpoint" not in training  # nothing to go on with
    assert training[training.index("--base_model") + 1] == str(embedded("nuclei2d") / "mask")


def test_a_budget_that_holds_too_few_steps_is_said(monkeypatch, tmp_path, capsys):
    def launch(module, options):
        folder = Path(options[options.index("--output_dir") + 1])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log.jsonl").write_text(json.dumps({"seconds_per_step": 6.0}))

    monkeypatch.setattr(module, "_launch", launch)
    fit(planned(tmp_path, budget=3, skip=tuple(set(STEPS) - {"mask"})))
    assert "mask: the budget is too short here: 50 steps, the fewest, take about 5 min" in capsys.readouterr().err


def test_what_stages_go_on_from():
    base = embedded("nuclei3d")
    plan = planned("out", base_model="nuclei3d")
    assert module._base(plan, "texture") == str(base / "texture")
    assert module._base(plan, "mask") == str(base / "mask")
    assert module._base(replace(plan, crop_size=128), "mask") is None  # outlines of another size
    assert module._base(replace(plan, base_model=str(base)), "mask") == str(base / "mask")
    hub = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert module._base(replace(plan, base_model=hub), "texture") == hub
    assert module._base(replace(plan, base_model=hub), "mask") is None


@pytest.mark.parametrize("sparse", [False, True])
def test_single_cells_are_compared_with_their_crops(sparse, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(experiment, "evaluate", seen.append)
    plan = planned(tmp_path, sparse=sparse, spacing_um=(0.5, 0.5), test="t", test_truth="st", test_sequences=["02"])
    module._evaluate(plan, tmp_path, None)
    assert seen == [
        EvaluateSettings(
            real_train="images",
            real_test="t",
            real_test_truth="st",
            real_test_sequences=("02",),
            spacing_um=(0.5, 0.5),
            synthetic=(str(tmp_path / "synthetic"),),
            sparse=(f"crops={tmp_path / 'crops'}",) if sparse else (),
            output_dir=tmp_path / "report",
        )
    ]


def test_stacks_go_on_from_the_model_of_stacks(ctc_sparse_3d, did, tmp_path):
    skip = ["--skip", *[step for step in STEPS if step != "prepare"]]
    for source, usual in ((ctc_sparse_3d, "nuclei3d"), (write_ctc_2d(tmp_path / "planes"), "nuclei2d")):
        assert usual_base(planned("out", source)) == usual
        assert main(["fit", str(source), "--output_dir", str(tmp_path / usual), *skip]) == 0
        assert json.loads((tmp_path / usual / "fit.json").read_text())["plan"]["base_model"] == usual


def test_images_that_have_changed_since_are_told_of(did, tmp_path, capsys):
    source = write_ctc_2d(tmp_path / "images", 2)
    plan = planned(tmp_path / "images" / "out", source, skip=("texture",))  # what is written inside is no change
    fit(plan)
    fit(plan)
    assert "has changed since" not in capsys.readouterr().err
    next((source / "01_GT" / "SEG").glob("*.tif")).unlink()
    fit(plan)
    assert f"{source} has changed since {plan.output_dir} was begun" in capsys.readouterr().err
