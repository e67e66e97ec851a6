"""A stage's second set of weights, with which it draws in a few steps: kept beside the first, as their difference."""

from pathlib import Path

import torch
from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler, SchedulerMixin
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from cascade.files import replacing
from cascade.hub.folders import FEW_STEPS, ModelError
from cascade.hub.low_rank import add_difference, low_rank_difference

_STEPS = "num_inference_steps"
_SAME = 2  # steps, of which either order is the same
_HOW = (_STEPS, "solver", "t_start")


def save_few_steps(base: DiffusionPipeline, distilled: DiffusionPipeline, folder: str | Path, *, rank: int) -> Path:
    """Write, beside a stage in `folder`, what makes `distilled` of it (`training/train_distilled.py`).

    rank: of the difference of each weight; see `low_rank_difference`. Number of steps, and solver and t_start where
    stages have them, are written with it. Raises ValueError where they differ in more.
    """
    found: dict[str, torch.Tensor] = {}
    for name, network in distilled.components.items():
        if isinstance(network, torch.nn.Module):
            before = getattr(base, name).state_dict()
            if any(not torch.equal(value, before[key]) for key, value in network.state_dict().items()):
                difference = low_rank_difference(before, network.state_dict(), rank)
                found |= {f"{name}/{key}": value for key, value in difference.items()}
    path = Path(folder) / FEW_STEPS
    with replacing(path) as temporary:
        how = {name: str(distilled.config[name]) for name in _HOW if name in distilled.config}
        save_file(found, temporary, metadata=how)
    return path


def has_few_steps(folder: Path) -> bool:
    """Whether outlines or texture of a cascade have weights that draw in a few steps."""
    return any((folder / stage / FEW_STEPS).is_file() for stage in ("mask", "texture"))


def first_order(scheduler: SchedulerMixin) -> SchedulerMixin:
    """One that makes DDIM's steps: DPM-Solver++ of the first order."""
    if isinstance(scheduler, DPMSolverMultistepScheduler):
        return DPMSolverMultistepScheduler.from_config(scheduler.config, solver_order=1)
    return scheduler


def add_few_steps(pipeline: DiffusionPipeline, folder: Path) -> bool:
    """Make a stage that was loaded from a folder draw in few steps, if the folder says how; `hub.ModelError` if what it
    says is of another stage. Returns whether it does."""
    path = folder / FEW_STEPS
    if not path.is_file():
        return False
    try:
        with safe_open(path, "pt") as file:
            told = file.metadata() or {}
            how = {name: int(told[name]) if told[name].isdecimal() else told[name] for name in _HOW if name in told}
            how[_STEPS] = int(told[_STEPS])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        for name in {key.partition("/")[0] for key in tensors}:
            own = {key.partition("/")[2]: value for key, value in tensors.items() if key.startswith(f"{name}/")}
            add_difference(getattr(pipeline, name), own)
    except (SafetensorError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{path}: does not belong to this stage ({error}); copy the model again, or remove it"
        ) from error
    pipeline.register_to_config(**how)
    if "solver" not in told and how[_STEPS] > _SAME:
        pipeline.register_modules(scheduler=first_order(pipeline.scheduler))  # with whose steps it was taught
    return True
