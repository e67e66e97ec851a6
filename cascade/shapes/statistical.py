"""Statistical shape model: the mean of real shapes and the modes in which they vary, to draw new ones from."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy import ndimage

from cascade.files import replacing
from cascade.geometry.grid import SignedDistance, Volume
from cascade.shapes.rays import COLUMNS, ROWS, measured_radii, rays, star_solid

_LIMIT = 3.0  # |b_j| ≤ 3 √λ_j
_THINNEST = 0.05  # the smallest radius, over the mean shape's mean one


@dataclass(frozen=True, eq=False)
class ShapeModel:
    """p = p̄ + Σ_j b_j φ_j (cGAN paper, Eq. 4), of points p along fixed rays from the centroid.

    Since the rays are fixed, p is known by its radii, and the covariance of the points is that of the radii. b_j is
    given in units of √λ_j, the standard deviation of the shapes along mode j: the paper prints the limit as 3 λ_j and
    means 3 √λ_j.
    """

    mean_um: npt.NDArray[Any]
    """(P,) radii of the mean shape."""
    modes_um: npt.NDArray[Any]
    """(N, P): √λ_j φ_j, how far the radii move by one standard deviation; N is smaller than the number of shapes."""
    num_shapes: int
    """Shapes that it was fitted to."""

    def __post_init__(self) -> None:
        count = ROWS * COLUMNS
        if self.mean_um.shape != (count,) or self.modes_um.ndim != 2 or self.modes_um.shape[1:] != (count,):
            raise ValueError(
                f"mean_um must be ({count},) and modes_um (N, {count}), got {self.mean_um.shape}, {self.modes_um.shape}"
            )
        if not (np.isfinite(self.mean_um).all() and np.isfinite(self.modes_um).all() and (self.mean_um >= 0).all()):
            raise ValueError("mean_um and modes_um must be finite, and mean_um not negative")

    @property
    def variances(self) -> npt.NDArray[Any]:
        """λ_j (N,) in µm², per unit of the sphere: what each mode explains, falling."""
        return self.modes_um**2 @ rays()[1]

    def radii(self, weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Radii (P,) in µm for the weights b_j / √λ_j (n,) of the first n modes.

        Raises ValueError for more weights than modes, or one beyond ±3.
        """
        weights = np.asarray(weights, float)
        if weights.ndim != 1 or len(weights) > len(self.modes_um):
            raise ValueError(f"weights must be up to {len(self.modes_um)} numbers, got shape {weights.shape}")
        if not (np.abs(weights) <= _LIMIT).all():
            raise ValueError(f"weights must lie within ±{_LIMIT:g} standard deviations, got {weights.tolist()}")
        return self._thick(self.mean_um + weights @ self.modes_um[: len(weights)])

    def shape(self, weights: npt.NDArray[Any], axes: npt.NDArray[Any] | None = None) -> SignedDistance:
        """The solid with these weights, around the origin; axes: (3, 3), rows of the frame it stands in."""
        return star_solid(self.radii(weights), axes)

    def draw(self, rng: np.random.Generator, count: int, *, num_modes: int | None = None) -> npt.NDArray[Any]:
        """Weights (count, n) of new shapes: normal, drawn again beyond ±3; of the first `num_modes`, default all."""
        weights = rng.standard_normal((count, self._modes(num_modes)))
        while (beyond := np.abs(weights) > _LIMIT).any():
            weights[beyond] = rng.standard_normal(int(beyond.sum()))
        return weights

    def fitted(self, radii_um: npt.NDArray[Any], *, num_modes: int | None = None) -> npt.NDArray[Any]:
        """The shape of the model that comes nearest to given radii (P,), without a limit on the weights, as radii."""
        modes, share = self.modes_um[: self._modes(num_modes)], rays()[1]
        scale = np.maximum(modes**2 @ share, np.finfo(float).tiny)
        weights = modes @ (share * (radii_um - self.mean_um)) / scale
        return self._thick(self.mean_um + weights @ modes)

    def save(self, path: str | Path) -> None:
        """Write it as one safetensors file."""
        about = json.dumps({"version": 1, "rows": ROWS, "columns": COLUMNS, "num_shapes": self.num_shapes})
        with replacing(Path(path)) as partial:
            save_file({"mean_um": self.mean_um, "modes_um": self.modes_um}, partial, {"shape_model": about})

    @classmethod
    def load(cls, path: str | Path) -> "ShapeModel":
        """What `save` wrote; raises ValueError, naming the file, for anything else."""
        try:
            with safe_open(path, "np") as file:
                about = json.loads(file.metadata()["shape_model"])
                return cls(file.get_tensor("mean_um"), file.get_tensor("modes_um"), int(about["num_shapes"]))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: holds no shape model ({error}); write one with ShapeModel.save") from error

    def _modes(self, num_modes: int | None) -> int:
        if num_modes is not None and not 0 <= num_modes <= len(self.modes_um):
            raise ValueError(
                f"num_modes must be from 0 to {len(self.modes_um)}, got {num_modes}: the model was fitted to "
                f"{self.num_shapes} shapes, which vary in one mode less than they are many"
            )
        return len(self.modes_um) if num_modes is None else num_modes

    def _thick(self, radii: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.maximum(radii, _THINNEST * self.mean_um.mean())


def fit_shape_model(
    volumes: Sequence[Volume], *, num_modes: int | None = None, align: bool = True, cut: bool = True
) -> ShapeModel:
    """The model of all cells of label volumes, or of one organism in each mask (bool).

    align: cells are turned to their principal axes; without, they stay as they lie, for organisms that stand upright.
    cut: cells that the volume's border cuts count too. num_modes: default all, one less than there are shapes. The
    modes come from the singular values of the data matrix, not from a covariance matrix of thousands of columns.
    Raises ValueError for fewer than two shapes, more modes than shapes allow, and other arrays.
    """
    found = [
        measured_radii(mask, volume.spacing_um, align=align)[0] for volume in volumes for mask in _solids(volume, cut)
    ]
    if len(found) < 2:
        raise ValueError(
            f"a shape model needs two shapes or more, got {len(found)}: give it volumes with several cells, or of "
            "several organisms"
        )
    return shape_model_of(np.array(found), num_modes=num_modes)


def shape_model_of(radii_um: npt.NDArray[Any], *, num_modes: int | None = None) -> ShapeModel:
    """The model of radii (K, P) that `measured_radii` gave; raises ValueError as `fit_shape_model` does."""
    count = len(radii_um)
    if num_modes is not None and not 0 < num_modes < count:
        raise ValueError(
            f"num_modes must be from 1 to {count - 1}, got {num_modes}: {count} shapes vary in {count - 1} modes"
        )
    if not np.isfinite(radii_um).all():
        raise ValueError("radii_um must be finite numbers")
    mean = radii_um.mean(0)
    root = np.sqrt(rays()[1])
    _, sizes, directions = np.linalg.svd((radii_um - mean) * root, full_matrices=False)
    modes = (sizes / np.sqrt(count - 1))[:, None] * directions / root  # √λ_j φ_j
    modes *= np.where(modes @ rays()[1] < 0, -1, 1)[:, None]  # positive weights enlarge
    return ShapeModel(mean.astype(np.float32), modes[: num_modes or count - 1].astype(np.float32), count)


def _solids(volume: Volume, cut: bool) -> list[npt.NDArray[Any]]:
    """Masks of all cells with a voxel of background around them."""
    labels = volume.array
    if labels.ndim != 3 or labels.dtype.kind not in "bui":
        raise ValueError(f"a shape model is of (Z, Y, X) masks or labels, got {labels.dtype} {labels.shape}")
    if labels.dtype.kind != "b":
        labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape) + int(labels.min() > 0)
    found = []
    for label, box in enumerate(ndimage.find_objects(labels.astype(np.int32)), 1):
        inside = all(side.start > 0 and side.stop < size for side, size in zip(box, labels.shape, strict=True))
        if cut or inside:
            found.append(np.pad(labels[box] == label, 1))
    return found
