import json
from dataclasses import replace
from pathlib import Path

import pytest

from cascade import embedded
from cascade import fit as module
from cascade.evaluation import experiment
from cascade.evaluation.sources import Source
from cascade.fit import STEPS, Plan, fit


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
    with pytest.raises(ValueError, match="no step cook"):
        fit(Plan(Path("images"), tmp_path, skip=("cook",)))


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
    assert module._base(plan, "texture") == base / "texture"
    assert module._base(plan, "mask") == base / "mask"
    assert module._base(replace(plan, crop_size=128), "mask") is None  # outlines of another size
    assert module._base(replace(plan, base_model=str(base)), "mask") == base / "mask"
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
