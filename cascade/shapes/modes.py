"""A picture of a shape model: its mean, what its modes do, and how much each explains."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from cascade.geometry.grid import Grid
from cascade.shapes.statistical import ShapeModel

_PLANES = ("along z", "along y", "along x")


def picture_of_modes(model: ShapeModel, path: str | Path, *, num_modes: int = 4, deviations: float = 2.0) -> None:
    """Outlines of the mean shape (black) and of mean ± `deviations` standard deviations (red, blue), in the planes
    through its centre, a row for each mode; at the bottom the share of variance that n modes explain together."""
    num_modes = min(num_modes, len(model.modes_um))
    step = 2 * float(model.mean_um.max()) / 48
    reach = 1.2 * float(max(model.radii(weights).max() for weights in _both(num_modes, deviations)))
    grid = Grid.covering((2 * reach, 2 * reach), (step, step))
    plane = grid.points_um()
    along = grid.axes_um()
    figure = Figure(figsize=(9, 3 * num_modes + 3), layout="constrained")
    axes = figure.subplots(num_modes + 1, 3, squeeze=False)
    for mode in range(num_modes):
        for normal, title in enumerate(_PLANES):
            points = np.insert(plane, normal, 0.0, axis=1)
            ax = axes[mode, normal]
            for amount, colour in ((0.0, "black"), (-deviations, "#2060d0"), (deviations, "#d04020")):
                weights = np.zeros(mode + 1)
                weights[mode] = amount
                distance = model.shape(weights)(points).reshape(grid.shape)
                ax.contour(along[1], along[0], distance, [0.0], colors=colour, linewidths=1.2)
            ax.set_aspect("equal")
            ax.tick_params(labelsize=7)
            ax.set_title(f"mode {mode + 1}, {title}")
    grown = np.cumsum(model.variances) / max(model.variances.sum(), np.finfo(float).tiny)
    for ax in axes[num_modes, 1:]:
        ax.remove()
    ax = figure.add_subplot(axes[num_modes, 0].get_gridspec()[num_modes, 0:])
    axes[num_modes, 0].remove()
    ax.plot(np.arange(1, len(grown) + 1), grown, color="black")
    ax.set(xlabel="modes", ylabel="variance explained", ylim=(0, 1.02), xscale="log" if len(grown) > 20 else "linear")
    ax.set_title(f"{model.num_shapes} shapes; above in µm: black mean, red +{deviations:g} √λ, blue −{deviations:g} √λ")
    ax.grid(alpha=0.3)
    figure.savefig(path, dpi=90)


def _both(num_modes: int, deviations: float) -> list[npt.NDArray[Any]]:
    return [sign * deviations * row for row in np.eye(num_modes) for sign in (-1, 1)]
