"""Whether statistics are such that images can be made with them."""

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from cascade.optics.statistics import Statistics


def check_statistics(found: "Statistics") -> None:
    """Raise ValueError, naming the field and what it has to be, for statistics that no image can be made with."""
    check_numbers("spacing_um", found.spacing_um, above=0)
    ndim = len(found.spacing_um)
    if ndim not in (2, 3):
        raise ValueError(f"spacing_um must be 2 or 3 finite numbers above 0, got {found.spacing_um}")
    check_numbers("image_shape", found.image_shape, count=ndim, above=0, whole=True)
    check_dtype(found.dtype)
    window, background, noise, axial = found.window, found.background, found.noise, found.axial
    check_numbers("window.low and window.high", [window.low, window.high])
    check_numbers("window.gamma", [window.gamma], above=0)
    check_numbers("background.levels", background.levels)
    for name in ("field_sd", "field_px", "haze_sd", "haze_px"):
        check_numbers(f"background.{name}", [getattr(background, name)], least=0)
    check_numbers("noise.offset", [noise.offset])
    check_numbers("noise.read_variance and noise.gain", [noise.read_variance, noise.gain], least=0)
    check_rows("noise.kernel", noise.kernel)
    if found.halo.profile != []:  # no halo
        check_numbers("halo.profile", found.halo.profile)
    if axial is None and ndim == 3:
        raise ValueError("axial must be there for stacks, got null")
    if axial is not None:
        check_numbers("axial.elongation", axial.elongation, count=2, least=0)
        check_numbers("axial.u", axial.u, least=0)
        check_numbers("axial.profile", axial.profile, count=len(axial.u))
        for name in ("diameter_um", "section", "glow", "glow_um"):
            check_numbers(f"axial.{name}", [getattr(axial, name)], least=0)
    check_numbers("cells_per_image", found.cells_per_image, least=0, whole=True)
    if found.region_um is not None:
        check_numbers("region_um", found.region_um, count=ndim, above=0)
    check_numbers("clustering_probability", [found.clustering_probability], least=0, most=1)
    check_numbers("cell_area_um2", found.cell_area_um2, above=0)
    cells, images = len(found.cell_area_um2), len(found.cells_per_image)
    check_numbers("cell_brightness", found.cell_brightness, count=cells)
    check_numbers("cell_image", found.cell_image, count=cells, least=0, most=images - 1, whole=True)
    if found.image_clustering != []:  # every image as the whole
        check_numbers("image_clustering", found.image_clustering, count=images, least=0, most=1)


def check_dtype(name: str) -> None:
    """Raise ValueError unless numpy has numbers of this name."""
    try:
        known = isinstance(name, str) and np.dtype(name).kind in "uif"
    except TypeError:
        known = False
    if not known:
        raise ValueError(f"dtype must be a numpy type of numbers, such as uint16, got {name!r}")


def check_rows(name: str, rows: object) -> None:
    """Raise ValueError unless a list holds rows of finite numbers, all as long as the first."""
    if not isinstance(rows, list | tuple) or not rows:
        raise ValueError(f"{name} must be rows of finite numbers, got {str(rows)[:60]}")
    for row in rows:
        check_numbers(f"each row of {name}", row, count=len(rows[0]) if isinstance(rows[0], list | tuple) else None)


def check_numbers(
    name: str,
    values: object,
    *,
    count: int | None = None,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    whole: bool = False,
) -> None:
    """Raise ValueError unless a list holds finite numbers, at least one, or `count` of them, all within bounds.

    >>> check_numbers("spacing_um", [0.5, -0.1], above=0)
    Traceback (most recent call last):
    ...
    ValueError: spacing_um must be finite numbers above 0, got [0.5, -0.1]
    """
    numbers = list(values) if isinstance(values, list | tuple) else []
    kind = int if whole else int | float
    sound = all(isinstance(n, kind) and not isinstance(n, bool) and math.isfinite(n) for n in numbers)
    sound = sound and all(least <= n <= most and n > above for n in numbers)
    if not sound or not numbers or len(numbers) != (len(numbers) if count is None else count):
        bounds = [f"above {above:g}"] if above > -math.inf else []
        bounds += [f"of {least:g} or more"] if least > -math.inf and most == math.inf else []
        bounds += [f"from {least:g} to {most:g}"] if least > -math.inf and most < math.inf else []
        what = " ".join(["whole numbers" if whole else "finite numbers", *bounds])
        wanted = what if count is None else f"{count} {what}"
        raise ValueError(f"{name} must be {wanted}, got {str(values)[:60]}")
