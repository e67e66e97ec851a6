"""How the light of cells falls along z and towards the middle of the organism, by their brightness."""

import numpy as np
import numpy.typing as npt
from scipy import optimize

from cascade.draws import scores

_FEWEST = 12  # cells
_CLEAR = 4.0  # standard errors: less is chance
_SLIGHT = 0.05  # of the light, over all depths that were seen: less is not worth it


def fitted_decay(
    contrasts: npt.NDArray[np.float64],
    z_um: npt.NDArray[np.float64] | None,
    inwards: npt.NDArray[np.float64],
) -> tuple[float, float]:
    """Share of light lost per µm along z, and at the deepest place of the organism; 0 for what is not clear.

    contrasts (N,): in that of their image's median cell. z_um (N,): depths of the cells, None of planes. inwards (N,):
    0 at the organism's surface, 1 at its deepest place. Least squares that outliers bend little (soft L1), of
    b₀ (1 − a z)(1 − c r).
    """
    if len(contrasts) < _FEWEST:
        return 0.0, 0.0
    columns = [np.zeros_like(contrasts) if z_um is None else z_um, inwards]
    scale = [float(np.ptp(column)) for column in columns]
    units = [column / s if s > 1e-6 else np.zeros_like(column) for column, s in zip(columns, scale, strict=True)]
    used = [n for n, s in enumerate(scale) if s > 1e-6]
    while used:
        start = np.append(float(np.median(contrasts)), np.zeros(len(used)))

        def misfit(parameters: npt.NDArray[np.float64], used: list[int] = used) -> npt.NDArray[np.float64]:
            model = np.full_like(contrasts, parameters[0])
            for n, share in zip(used, parameters[1:], strict=True):
                model = model * (1 - share * units[n])
            return model - contrasts

        spread = max(float(np.median(np.abs(contrasts - np.median(contrasts)))), 1e-6)
        found = optimize.least_squares(misfit, start, loss="soft_l1", f_scale=2 * spread)
        rest = misfit(found.x)
        errors = np.sqrt(np.diag(np.linalg.pinv(found.jac.T @ found.jac)) * rest.var())
        weak = [k for k, (share, error) in enumerate(zip(found.x[1:], errors[1:], strict=True))
                if abs(share) < max(_CLEAR * error, _SLIGHT)]  # fmt: skip
        if not weak:
            shares = dict(zip(used, found.x[1:], strict=True))
            along = shares.get(0, 0.0) / scale[0] if scale[0] > 1e-6 else 0.0
            return float(along), float(min(shares.get(1, 0.0) / scale[1] if scale[1] > 1e-6 else 0.0, 1.0))
        worst = min(weak, key=lambda k: abs(found.x[1 + k]) / max(errors[1 + k], 1e-9))
        used = [n for k, n in enumerate(used) if k != worst]
    return 0.0, 0.0


def shared_variance(values: npt.NDArray[np.float64], image: npt.NDArray[np.int_]) -> float:
    """Share of the variance of normal scores that lies between images, corrected for what is so by chance, 0 to 1.

    >>> shared_variance(np.arange(60.0), np.repeat(np.arange(6), 10)) > 0.9
    True
    """
    if len(np.unique(image)) < 3:
        return 0.0
    ranks = np.argsort(np.argsort(values))
    normal = scores((ranks + 0.5) / len(values))
    counts = np.bincount(image)
    seen = counts > 1
    means = np.bincount(image, normal) / np.maximum(counts, 1)
    own = np.bincount(image, (normal - means[image]) ** 2)
    within = own[seen].sum() / (counts[seen] - 1).sum() if seen.any() else 0.0
    between = max(float(means[seen].var(ddof=1) - (within / counts[seen]).mean()), 0.0) if seen.sum() > 1 else 0.0
    return round(float(between / (between + within)), 3) if between + within > 0 else 0.0
