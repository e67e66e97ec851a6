"""From annotated images to an annotated data set in one go: prepare, train, assemble, generate, evaluate."""

import json
import logging
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

from cascade.commands import fit_raw
from cascade.commands.child import run_child
from cascade.commands.fit_plan import announced, beyond_budget
from cascade.commands.fit_progress import RECORD, Progress
from cascade.commands.settings import FitSettings, Step
from cascade.commands.simulate import contents
from cascade.evaluation.settings import EvaluateSettings
from cascade.files import STATE, exclusive
from cascade.hub.folders import base_model_folder, model_index
from cascade.locks import scratch
from cascade.ownership import check_not_input

log = logging.getLogger(__name__)

STEPS: tuple[Step, ...] = ("prepare", "mask", "texture", "assemble", "generate", "evaluate")
_RAW_STEPS: tuple[Step, ...] = ("sketch", "tune", "generate", "evaluate")  # without annotations
_SCRIPTS = {"mask": "cascade.training.train_mask_ddpm", "texture": "cascade.training.train_controlnet"}
_SHARES = {"mask": 0.3, "texture": 0.7}  # of the time for training
_TRIAL = 4  # steps that tell how long one takes
_FEWEST = 50  # steps, whatever the budget
_CHANGED = "{} has changed since {} was begun, which goes on with what was read then: name another --output_dir for it"
SAID_ABOVE = "its message is above"  # of a step that is a process of its own


def fit(plan: FitSettings) -> Path:
    """Carry out a plan; returns the folder of the synthetic data set.

    Every step that is finished is remembered in `fit.json`, trainings go on from their checkpoints: the same call
    again does what is left. Raises ValueError, before anything is made, for a folder that holds another plan's work,
    a base model that is not there, or a test that cannot be evaluated on, ImportError if Cellpose is not there for it,
    and `files.Busy` if another process fits there; RuntimeError if a step fails. The processes of a step end with this
    one.
    """
    steps, do = (_RAW_STEPS, _DO | fit_raw.DO) if plan.simulate else (STEPS, _DO)
    if strange := [one for one in plan.skip if one not in steps]:
        raise ValueError(f"skip names {strange[0]}, which is none of the steps here: {', '.join(steps)}")
    if plan.base_model is None:
        plan = replace(plan, base_model=fit_raw.base_of(plan) if plan.simulate else usual_base(plan))
    output = plan.output_dir
    check_not_input(output, plan.source)
    with exclusive(output, "cascade fit"):
        state = Progress.load(output / RECORD, plan)
        if not state.is_of(contents(plan.source, output)):
            print(_CHANGED.format(plan.source, output), file=sys.stderr)
        if plan.simulate and "generate" not in state.done:
            fit_raw.check_organism(plan)
        if "texture" in steps and "texture" not in (*plan.skip, *state.done):
            base_model_folder(_stage(plan, "texture"))  # hours before it is asked for
        if plan.test is not None and "evaluate" not in plan.skip:
            _check_test(plan, plan.test)
        planned = [one for one in steps if one not in plan.skip and (one != "evaluate" or plan.test is not None)]
        left = [one for one in planned if one not in state.done]
        if left not in ([], ["evaluate"]):
            print(announced(plan, left), file=sys.stderr)
        for step in left:
            print(f"[{planned.index(step) + 1}/{len(planned)}] {step}", file=sys.stderr)
            try:
                do[step](plan, output, state)
            except KeyboardInterrupt:
                print(f"stopped in step {step}; the same command goes on from there", file=sys.stderr)
                raise
            if step != "evaluate":  # it remembers itself what it has done, and of which data
                state.finish(step)
        _drop_checkpoints(output, state)
    return output / "synthetic"


def _drop_checkpoints(output: Path, state: Progress) -> None:
    """Of trainings that are finished, whose model is all that anyone asks for."""
    from cascade.training.checkpoints import checkpoints

    places = {"mask": "stages/mask", "texture": "stages/texture", "sketch": "model"}
    for folder in (output / place for step, place in places.items() if step in state.done):
        for training in (folder, *folder.glob("training_*")):
            for checkpoint in checkpoints(training):
                shutil.rmtree(checkpoint)


def usual_base(plan: FitSettings) -> str:
    """The embedded model that is nearest to a data set: that of planes, or that of stacks."""
    from cascade.data.frames import find_frames

    frames, _ = find_frames(plan.source, plan.truth, list(plan.sequences) or None, channel=plan.channel)
    return f"nuclei{frames[0].image().ndim}d"


def _prepare(plan: FitSettings, output: Path, state: Progress) -> None:
    from cascade.data.prepare import prepare
    from cascade.data.settings import PrepareSettings

    prepare(
        PrepareSettings(
            plan.source,
            output_dir=output / "crops",
            truth=plan.truth,
            sequences=plan.sequences,
            channel=plan.channel,
            crop_size=plan.crop_size,
            pixel_size_um=plan.pixel_size_um,
            spacing_um=plan.spacing_um,
            licence=plan.licence,
            sparse=plan.sparse,
            seed=plan.seed,
        )
    )


def _train(stage: str, plan: FitSettings, output: Path, state: Progress) -> None:
    """Train within the budget, which holds the trial that measures how long a step takes, too."""
    options = ["--data", str(output / "crops"), "--seed", str(plan.seed)]
    base = _base(plan, stage)
    options += ["--base_model", base] if base else []
    own = {"mask": ["--sample_size", str(_crop_size(plan) // 2)], "texture": ["--train_batch_size", "32"]}
    options += own[stage]
    if stage not in state.train_steps:
        start = time.perf_counter()
        with scratch(output / STATE / "trial") as folder:
            trial = ["--max_train_steps", str(_TRIAL), "--logging_steps", "1", "--checkpointing_steps", "1000"]
            trial += ["--decoder_max_train_steps", "0"] if stage == "texture" else []
            _launch(_SCRIPTS[stage], [*options, "--output_dir", str(folder), *trial])
            lines = (folder / "log.jsonl").read_text().splitlines()
        seconds = min(json.loads(line)["seconds_per_step"] for line in lines)
        begun = time.perf_counter() - start  # until the first step twice: of the trial, and of the training
        steps = int((60 * plan.budget * _SHARES[stage] - 2 * begun + _TRIAL * seconds) / seconds)
        state.train_steps[stage] = max(min(steps, 20_000), _FEWEST)
        state.save()
        if steps < _FEWEST:
            print(beyond_budget(stage, _FEWEST, seconds), file=sys.stderr)
    steps = state.train_steps[stage]
    often = ["--checkpointing_steps", str(max(steps // 10, 25)), "--preview_steps", str(max(steps // 4, 25))]
    often += ["--lr_warmup_steps", str(min(200, steps // 10))]
    often += ["--resume_from_checkpoint", "latest"] if (output / "stages" / stage).is_dir() else []
    often += ["--decoder_max_train_steps", str(min(200, steps // 5))] if stage == "texture" else []
    print(f"{stage}: {steps} steps, see {output / 'stages' / stage / 'log.jsonl'}", file=sys.stderr)
    options += ["--output_dir", str(output / "stages" / stage), "--max_train_steps", str(steps)]
    _launch(_SCRIPTS[stage], [*options, *often])


def _launch(module: str, options: list[str]) -> None:
    """Run a module in processes of its own, as accelerate is set up."""
    _check(module, run_child(module, options, launched=True))


def _check(module: str, code: int) -> None:
    if code:
        raise RuntimeError(f"{module} stopped: {SAID_ABOVE}; the same command goes on from here")


def _stage(plan: FitSettings, stage: str) -> str:
    """A stage of the plan's base model."""
    from cascade.hub.embedded import stage_of

    return stage_of(usual_base(plan) if plan.base_model is None else plan.base_model, stage)


def _base(plan: FitSettings, stage: str) -> str | None:
    """What a stage goes on from, or None: outlines of another size, or of no model, are trained from scratch."""
    base = _stage(plan, stage)
    if stage == "texture":
        return base
    if model_index(Path(base)).get("_class_name") != "MaskDDPMPipeline":
        return None
    drawn_at = json.loads(Path(base, "unet", "config.json").read_text())["sample_size"]
    return base if drawn_at == _crop_size(plan) // 2 else None


def _crop_size(plan: FitSettings) -> int:
    """Of the crops that were prepared, or will be."""
    from cascade.data.dataset import crop_size_of
    from cascade.data.sizes import USUAL_CROP

    crops = plan.output_dir / "crops"
    return crop_size_of(crops) if any(crops.glob("data/*.parquet")) else plan.crop_size or USUAL_CROP


def _assemble(plan: FitSettings, output: Path, state: Progress) -> None:
    options = ["assemble", str(output / "stages"), "--output_dir", str(output / "model"), "--half"]
    _check("cascade assemble", run_child("cascade", options))  # one process alone


def _generate(plan: FitSettings, output: Path, state: Progress) -> None:
    options = ["--model", str(output / "model"), "--output_dir", str(output / "synthetic")]
    options += ["--num_images", str(plan.num_images), "--seed", str(plan.seed)]
    options += ["--format", "cellpose"] + (["--bank", str(plan.bank)] if plan.bank else [])
    _launch("cascade", ["generate", *options])


def _evaluation(plan: FitSettings, test: Path) -> EvaluateSettings:
    """What is compared in the end."""
    if plan.simulate:
        return fit_raw.evaluation(plan, test)
    return EvaluateSettings(
        real_train=plan.source,
        real_train_truth=plan.truth,
        real_train_sequences=plan.sequences,
        real_test=test,
        real_test_truth=plan.test_truth,
        real_test_sequences=plan.test_sequences,
        spacing_um=plan.spacing_um,
        channel=plan.channel,
        synthetic=(str(plan.output_dir / "synthetic"),),
        sparse=(f"crops={plan.output_dir / 'crops'}",) if plan.sparse else (),  # frames half unlabelled teach little
        output_dir=plan.output_dir / "report",
    )


def _check_test(plan: FitSettings, folder: Path) -> None:
    """Raise what the evaluation would, hours later."""
    from cascade.evaluation.checks import check_kind, check_sets
    from cascade.evaluation.segmenters import need_cellpose
    from cascade.evaluation.sources import real_sources

    need_cellpose(3)
    train, test = (source.load() if source else [] for source in real_sources(_evaluation(plan, folder)))
    sets = {"real_train": train, "real_test": test}
    check_sets({name: images for name, images in sets.items() if images}, generated=set())
    if train:
        check_kind("what will be generated", train[0].stored.ndim, test[0], generated=True)


def _evaluate(plan: FitSettings, output: Path, state: Progress) -> None:
    from cascade.evaluation.experiment import evaluate

    if plan.test is not None:
        evaluate(_evaluation(plan, plan.test))


_DO = {
    "prepare": _prepare,
    "mask": lambda *arguments: _train("mask", *arguments),
    "texture": lambda *arguments: _train("texture", *arguments),
    "assemble": _assemble,
    "generate": _generate,
    "evaluate": _evaluate,
}
