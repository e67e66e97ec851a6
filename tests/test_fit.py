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
from cascade.commands.fit import STEPS, Plan, fit
from cascade.evaluation import experiment, segmenters
from cascade.evaluation.sources import Source


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
    monkeypatch.setattr(module, "_check_test", lambda plan: None)
    return calls


def test_it_goes_on_where_it_was_and_skips_what_it_is_told(did, tmp_path):
    plan = Plan(Path("images"), tmp_path, skip=("generate",), test=(Path("t"), "gt", ()))
    with pytest.raises(KeyboardInterrupt):
        fit(plan)
    assert did == ["prepare", "mask", "texture"]
    fit(plan)
    assert did == ["prepare", "mask", "texture", "texture", "assemble", "evaluate"]
    fit(plan)
    assert did[6:] == ["evaluate"]  # which knows itself what is left to do
    with pytest.raises(ValueError, match=r"another plan \(other source\)"):
        fit(Plan(Path("other images"), tmp_path))
    with pytest.raises(ValueError, match=r"other num_images, seed"):
        fit(Plan(Path("images"), tmp_path, num_images=5, seed=1))
    with pytest.raises(ValueError, match="give minutes above 0"):
        fit(Plan(Path("images"), tmp_path / "other", budget_minutes=0))
    with pytest.raises(ValueError, match=r"vae/config.json"):
        fit(Plan(Path("images"), tmp_path / "other", base_model=str(tmp_path)))
    with pytest.raises(ValueError, match="no step cook"):
        fit(Plan(Path("images"), tmp_path, skip=("cook",)))


def test_a_test_that_cannot_be_used_is_refused_before_the_first_step(ctc_sparse_3d, monkeypatch, tmp_path):
    done = []
    monkeypatch.setattr(segmenters, "_major", lambda: 3)
    monkeypatch.setattr(module, "_DO", {name: lambda *_, name=name: done.append(name) for name in STEPS})
    planes = {name: write_ctc_2d(tmp_path / name, 2, seed) for seed, name in enumerate(("train", "test"))}
    plan = Plan(planes["train"], tmp_path / "out", test=(planes["test"], "gt", ()))
    slices = replace(plan, source=ctc_sparse_3d, spacing_um=(2, 1, 1), output_dir=tmp_path / "slices")
    for wrong, message in (
        (replace(plan, test=(planes["train"], "gt", ())), "also training images"),
        (replace(plan, test=(tmp_path / "nowhere", "gt", ())), "nowhere: no such folder"),
        (replace(plan, test=(planes["test"], "st", ())), "choose the other truth, gt"),
        (replace(slices, test=(ctc_sparse_3d, "gt", ())), "also training images"),
        (replace(slices, test=(_other_slices(tmp_path), "gt", ())), r"generated holds stacks.*--test_truth st"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(wrong)
    assert not done
    fit(replace(plan, test=(planes["train"], "gt", ()), skip=("evaluate",)))
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
    fit(Plan(Path("images"), tmp_path, budget_minutes=10, skip=skip))
    (_, trial), (module_name, training) = commands
    assert module_name == "cascade.training.train_mask_ddpm"
    assert trial[trial.index("--max_train_steps") + 1] == "4"
    assert training[training.index("--max_train_steps") + 1] == str(int(600 * 0.3 / 0.5))
    assert training[training.index("--resume_from_checkpoint") + 1] == "latest"
    assert training[training.index("--base_model") + 1] == str(embedded("nuclei2d") / "mask")


def test_what_stages_go_on_from():
    base = embedded("nuclei3d")
    plan = Plan(Path("images"), Path("out"), base_model="nuclei3d")
    assert module._base(plan, "texture") == str(base / "texture")
    assert module._base(plan, "mask") == str(base / "mask")
    assert module._base(replace(plan, crop_size=128), "mask") is None  # outlines of another size
    assert module._base(replace(plan, base_model=str(base)), "mask") == str(base / "mask")
    hub = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert module._base(replace(plan, base_model=hub), "texture") == hub
    assert module._base(replace(plan, base_model=hub), "mask") is None


@pytest.mark.parametrize("sparse", [False, True])
def test_single_cells_are_compared_with_their_crops(sparse, monkeypatch, tmp_path):
    seen = {}
    monkeypatch.setattr(experiment, "evaluate", lambda *sets, **options: seen.update(sets=sets, **options))
    plan = Plan(Path("images"), tmp_path, sparse=sparse, spacing_um=(0.5, 0.5), test=(Path("t"), "st", ("02",)))
    module._evaluate(plan, tmp_path, None)
    train, test, made, output = seen["sets"]
    assert (train, test) == (
        Source(Path("images"), spacing_um=(0.5, 0.5)),
        Source(Path("t"), "st", ("02",), spacing_um=(0.5, 0.5)),
    )
    assert (made, output) == ({"synthetic": Source(tmp_path / "synthetic")}, tmp_path / "report")
    assert seen["sparse"] == ({"crops": Source(tmp_path / "crops")} if sparse else None)


def test_stacks_go_on_from_the_model_of_stacks(ctc_sparse_3d, monkeypatch, tmp_path):
    plans = []
    monkeypatch.setattr(module, "fit", lambda plan: plans.append(plan) or tmp_path)
    for source in (ctc_sparse_3d, write_ctc_2d(tmp_path / "planes")):
        assert main(["fit", str(source), "--output_dir", str(tmp_path / "out")]) == 0
    assert main(["fit", str(source), "--output_dir", str(tmp_path / "out"), "--base_model", "nuclei3d"]) == 0
    assert [plan.base_model for plan in plans] == ["nuclei3d", "nuclei2d", "nuclei3d"]
