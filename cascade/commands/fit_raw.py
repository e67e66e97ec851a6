"""From raw images without any annotation to an annotated data set: simulate, train, tune, generate, evaluate."""

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cascade.commands.child import run_child
from cascade.commands.fit_plan import beyond_budget
from cascade.commands.fit_progress import Progress
from cascade.commands.settings import FitSettings
from cascade.commands.simulate import FITTED
from cascade.evaluation.settings import EvaluateSettings
from cascade.files import STATE
from cascade.locks import scratch
from cascade.reading import read_image
from cascade.simulators.catalogue import ORGANISMS

_SCRIPT = "cascade.training.train_sketch_ddpm"
_BASES = {2: "sketch2d", 3: "sketch3d"}
_TISSUES = ("meristem", "tissue")
_PATCH = {2: (128, 128), 3: (32, 64, 64)}
_BATCH = {2: 8, 3: 2}
_TRIAL = 4  # steps that tell how long one takes
_FEWEST, _MOST = 50, 50_000


def check_organism(plan: FitSettings) -> None:
    """Raise ValueError for an organism that there is not, or that is not of the images' dimension."""
    name, axes = plan.simulate or "", len(_shape(plan))
    known = [one for one in ORGANISMS if one != "labels"]
    if name == "auto" or name in FITTED:
        return
    if name not in known:
        raise ValueError(f"there is no organism {name}: `simulate` takes auto, {', '.join(known)}")
    usual = ORGANISMS[name].settings_class()()
    if "spacing_um" not in {one.name for one in dataclasses.fields(usual)}:
        raise ValueError(f"{name} has its own voxels, which no model paints: simulate it, resample, and paint that")
    if len(usual.canvas_size) != axes:
        raise ValueError(
            f"{name} is of {len(usual.canvas_size)} axes, and {plan.source} holds images of {axes}: name another one"
        )


def train(plan: FitSettings, output: Path, state: Progress) -> None:
    """Train a DDPM from sketches within the budget: how long a step takes is measured first."""
    shape = _shape(plan)
    patch = [min(most, n) for most, n in zip(_PATCH[len(shape)], shape, strict=True)]
    options = ["--data", str(plan.source), "--seed", str(plan.seed), "--licence", plan.licence, "--report_to", "none"]
    options += ["--patch_size", *map(str, patch), "--train_batch_size", str(_BATCH[len(shape)])]
    options += ["--sequences", *plan.sequences] if plan.sequences else []
    options += ["--spacing_um", *map(str, plan.spacing_um)] if plan.spacing_um else []
    options += ["--channel", plan.channel] if plan.channel else []
    options += ["--base_model", base_of(plan), "--mixed_precision", _precision()]
    if "sketch" not in state.train_steps:
        start = time.perf_counter()
        with scratch(output / STATE / "trial") as folder:
            trial = ["--max_train_steps", str(_TRIAL), "--logging_steps", "1", "--preview_steps", "1000"]
            _launch(_SCRIPT, [*options, "--output_dir", str(folder), *trial])
            lines = (folder / "log.jsonl").read_text().splitlines()
        seconds = min(json.loads(line)["seconds_per_step"] for line in lines)
        begun = time.perf_counter() - start  # until the first step twice: of the trial, and of the training
        steps = int((60 * plan.budget - 2 * begun + _TRIAL * seconds) / seconds)
        state.train_steps["sketch"] = min(max(steps, _FEWEST), _MOST)
        state.save()
        if steps < _FEWEST:
            print(beyond_budget("sketch", _FEWEST, seconds), file=sys.stderr)
    steps = state.train_steps["sketch"]
    print(f"sketch: {steps} steps, see {output / 'model' / 'log.jsonl'}", file=sys.stderr)
    often = ["--checkpointing_steps", str(max(steps // 10, 25)), "--preview_steps", str(max(steps // 4, 25))]
    often += ["--lr_warmup_steps", str(min(200, steps // 10))]
    often += ["--resume_from_checkpoint", "latest"] if (output / "model").is_dir() else []
    options += ["--output_dir", str(output / "model"), "--max_train_steps", str(steps)]
    _launch(_SCRIPT, [*options, *often])


def tune(plan: FitSettings, output: Path, state: Progress) -> None:
    """Choose t_start and sigma."""
    options = [str(plan.source), "--model", str(output / "model"), "--output_dir", str(output / "tune"), "--save"]
    options += ["--sequences", *plan.sequences] if plan.sequences else []
    options += ["--spacing_um", *map(str, plan.spacing_um)] if plan.spacing_um else []
    options += ["--channel", plan.channel] if plan.channel else []
    _check("cascade tune", run_child("cascade", ["tune", *options]))


def generate(plan: FitSettings, output: Path, state: Progress) -> None:
    """Paint simulated scenes."""
    assert plan.simulate is not None
    options = ["--model", str(output / "model"), "--output_dir", str(output / "synthetic"), "--simulate", plan.simulate]
    if plan.simulate in FITTED:
        options += ["--like", str(plan.source)]
        options += ["--like_sequences", *plan.sequences] if plan.sequences else []
        options += ["--like_channel", plan.channel] if plan.channel else []
    options += ["--num_images", str(plan.num_images), "--seed", str(plan.seed), "--format", "cellpose"]
    _launch("cascade", ["generate", *options])


def evaluation(plan: FitSettings, test: Path) -> EvaluateSettings:
    """What was generated is judged alone: there are no annotated images to compare it with."""
    return EvaluateSettings(
        real_test=test,
        real_test_truth=plan.test_truth,
        real_test_sequences=plan.test_sequences,
        spacing_um=plan.spacing_um,
        channel=plan.channel,
        synthetic=(str(plan.output_dir / "synthetic"),),
        title="Segmentation learnt without annotations",
        output_dir=plan.output_dir / "report",
    )


def base_of(plan: FitSettings) -> str:
    """The model that training goes on from: the plan's, or the embedded one of planes, of stacks, or of stacks of
    membranes, where the organism that is named has them, or auto's images show them."""
    if plan.base_model:
        return plan.base_model
    axes = len(_shape(plan))
    tissue = axes == 3 and (plan.simulate in _TISSUES or (plan.simulate == "auto" and _shows_membranes(plan)))
    return "membrane3d" if tissue else _BASES[axes]


def _precision() -> str:
    """In which a step is 1.4 times as fast, where this machine computes in it."""
    import torch

    from cascade.processor import fast_bfloat16

    return "bf16" if fast_bfloat16("cuda" if torch.cuda.is_available() else "cpu") else "no"


def _shows_membranes(plan: FitSettings) -> bool:
    from cascade.data.structure import structure_of_files

    return structure_of_files(_paths(plan), plan.channel) == "membranes"


def _shape(plan: FitSettings) -> tuple[int, ...]:
    """Of the smallest image along each axis."""
    shapes = [read_image(path, plan.channel).shape for path in _paths(plan)]
    return tuple(min(sides) for sides in zip(*shapes, strict=False))


def _paths(plan: FitSettings) -> list[Path]:
    from cascade.data.images import find_images

    return [path for group in find_images(plan.source, plan.sequences) for path in group]


def _launch(module: str, options: list[str]) -> None:
    _check(module, run_child(module, options, launched=True))


def _check(module: str, code: int) -> None:
    if code:
        raise RuntimeError(f"{module} stopped: its message is above; the same command goes on from here")


DO: dict[str, Callable[[FitSettings, Path, Progress], None]] = {"sketch": train, "tune": tune, "generate": generate}
