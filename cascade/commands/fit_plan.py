"""What `fit` is going to do, and about how long that takes."""

import contextlib
from collections.abc import Sequence

import numpy as np

from cascade.commands.settings import FitSettings, Step
from cascade.evenly import evenly
from cascade.reading import DataError

_LOOKED_AT = 3  # images whose cells are counted
_CELL_S = {2: 1.0, 3: 6.7}  # of one thread, to make one cell; measured, see docs/RESULTS.md
_PIXEL_S = {2: 3e-5, 3: 6e-5}  # of one thread, to paint one pixel from a sketch
_GPU = {2: 0.02, 3: 0.075}  # a GPU's time for a cell in seconds
_REST = {"prepare": 1.0, "assemble": 0.5, "tune": 4.0}  # minutes, of a few hundred cells on two threads
_TRAINED = ("mask", "texture", "sketch")


def announced(plan: FitSettings, steps: Sequence[Step]) -> str:
    """The steps and their time, in a line: of images as long as cells like those in some real ones take.

    Real images that cannot be read are passed over: the step that needs them says so.
    """
    rest = sum(_REST.get(step, 0.0) for step in steps)
    training = plan.budget if any(step in _TRAINED for step in steps) else 0.0
    images = 0.0
    if "generate" in steps:
        with contextlib.suppress(DataError):
            images = _minutes_of_images(plan)
    parts = [f"{_time(training)} of training"] * bool(training)
    parts += [f"{_time(images)} for {plan.num_images} images"] * bool(images)
    evaluated = "; then the evaluation" if "evaluate" in steps else ""
    of = f" ({', '.join(parts)})" if parts else ""
    return f"plan: {', '.join(steps)}: about {_time(training + images + rest)}{of}{evaluated}"


def beyond_budget(stage: str, steps: int, seconds: float) -> str:
    """What is said of a training whose fewest steps, of so many seconds each, do not fit into the budget.

    >>> beyond_budget("texture", 50, 6.0)
    'texture: the budget is too short here: 50 steps, the fewest, take about 5 min'
    """
    return f"{stage}: the budget is too short here: {steps} steps, the fewest, take about {_time(steps * seconds / 60)}"


def _minutes_of_images(plan: FitSettings) -> float:
    import torch

    gpu, threads = torch.cuda.is_available(), max(torch.get_num_threads(), 1)
    if plan.simulate:
        from cascade.data.images import find_images
        from cascade.reading import read_image

        paths = [path for group in find_images(plan.source, plan.sequences) for path in group]
        shape = read_image(paths[0], plan.channel).shape
        seconds = float(np.prod(shape)) * _PIXEL_S[len(shape)] / (100 if gpu else threads)
        return plan.num_images * seconds / 60
    from cascade.data.frames import find_frames

    frames, _ = find_frames(plan.source, plan.truth, list(plan.sequences) or None, channel=plan.channel)
    some = [frames[n] for n in evenly(len(frames), _LOOKED_AT)]
    cells = float(np.mean([len(np.unique(frame.labels())) - 1 for frame in some]))
    ndim = some[0].image().ndim
    return (plan.bank or plan.num_images * cells) * (_GPU[ndim] if gpu else _CELL_S[ndim] / threads) / 60


def _time(minutes: float) -> str:
    """As it is said.

    >>> _time(0.4), _time(75), _time(59.7)
    ('1 min', '1 h 15 min', '1 h')
    """
    whole = max(round(minutes), 1)
    hours, left = divmod(whole, 60)
    return " ".join([f"{hours} h"] * bool(hours) + [f"{left} min"] * bool(left))
