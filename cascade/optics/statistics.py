"""What generation must know of a data set besides its pixels: one JSON file that travels with crops and models."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cascade.optics.axial import Axial
from cascade.optics.background import Background
from cascade.optics.glow import Glow
from cascade.optics.halo import Halo
from cascade.optics.noise import Noise
from cascade.optics.numbers import check_dtype, check_numbers, check_rows
from cascade.optics.window import Window

FILE_NAME = "statistics.json"
_MEND = "make them anew with 'cascade prepare'"


@dataclass(frozen=True)
class Statistics:
    """Fitted from real images by `cascade prepare`; every value can be overridden when generating.

    Lengths are µm, intensities camera units; sequences hold one entry per real image or per annotated cell.
    """

    source: str
    licence: str
    spacing_um: tuple[float, ...]
    image_shape: tuple[int, ...]  # (Y, X) or (Z, Y, X) of a typical image
    dtype: str
    window: Window
    background: Background
    noise: Noise
    halo: Halo  # in-plane light around a cell, per pixel of the image
    axial: Axial | None  # None for 2D images
    cells_per_image: list[int]
    region_um: tuple[float, ...] | None  # semi-axes of the ellipsoid that the cells' centres fill; None: everywhere
    clustering_probability: float
    cell_area_um2: list[float]
    cell_brightness: list[float]  # mean over the middle plane, on the reference background
    cell_image: list[int]  # which entry of cells_per_image a cell is from
    image_clustering: list[float] = field(default_factory=list)  # of each entry of cells_per_image, where it differs
    image_level: list[float] = field(default_factory=list)  # background of each entry of cells_per_image, where known
    cut_by_border: bool = False  # images are windows of a larger sample: cells_per_image counts those that are cut
    glow: Glow | None = None  # stray light of planes; that of stacks is in `axial`
    middles_um: list[float] = field(default_factory=list)  # above the first slice, of cells that lie in one layer
    region_shift_um: list[list[float]] = field(default_factory=list)  # of the region from the middle of each image
    region_shell: list[list[float]] = field(default_factory=list)  # in each image cells lie between two, [inner, outer]

    @property
    def ndim(self) -> int:
        """2 or 3."""
        return len(self.spacing_um)

    def noise_sd(self, pixel_um: float) -> float:
        """Camera noise of a typical cell's pixel after the window, in units of [0, 1].

        Counted per independent pixel: where crops are finer than the image, each of its pixels stands for several.
        """
        typical = float(np.median(self.cell_brightness))
        spread = float(np.sqrt(self.noise.variance(np.array(typical))))
        low, high = self.window.stretch(np.array([typical - 0.5 * spread, typical + 0.5 * spread]))
        return float(high - low) * max(self.spacing_um[-1] / pixel_um, 1.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "Statistics":
        """Inverse of `to_dict`; lists where tuples were are accepted.

        Raises ValueError naming a key that is missing, or whose value cannot be.
        """
        if not isinstance(record, dict):
            raise ValueError(f"statistics are a dictionary, not {str(record)[:20]}: {_MEND}")
        record = dict(record)
        kinds: dict[str, type[Any]] = {"window": Window, "background": Background, "noise": Noise, "halo": Halo}
        optional: dict[str, type[Any]] = {"axial": Axial, "glow": Glow}
        kinds |= {key: kind for key, kind in optional.items() if record.get(key) is not None}
        for key, kind in kinds.items():
            try:
                record[key] = kind(**record[key])
            except (KeyError, TypeError) as error:
                raise ValueError(f"{key} is missing or incomplete ({error}): {_MEND}") from error
        try:
            found = cls(**record)
        except TypeError as error:
            raise ValueError(f"these are no complete statistics ({error}): {_MEND}") from error
        check_statistics(found)
        tuples: dict[str, Any] = {key: tuple(record[key]) for key in ("spacing_um", "image_shape")}
        if found.region_um:
            tuples["region_um"] = tuple(found.region_um)
        if found.axial:
            mean, spread = found.axial.elongation
            z_um, plane_um = found.axial.haze_um
            tuples["axial"] = replace(found.axial, elongation=(mean, spread), haze_um=(z_um, plane_um))
        return replace(found, **tuples)

    def save(self, folder: str | Path) -> None:
        """Write `statistics.json` into a folder."""
        (Path(folder) / FILE_NAME).write_text(json.dumps(self.to_dict(), indent=1))

    @classmethod
    def load(cls, folder: str | Path) -> "Statistics":
        """Read `statistics.json` from a folder; raises ValueError, naming it, if it is cut or unsound."""
        path = Path(folder) / FILE_NAME
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing: make the folder with 'cascade prepare'")
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} is not JSON ({error}): {_MEND}") from error
        except ValueError as error:  # also of another encoding than UTF-8
            raise ValueError(f"{path}: {error}") from error


def check_statistics(found: Statistics) -> None:
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
    for name in ("read_variance", "gain", "read_sd"):
        check_numbers(f"noise.{name}", [getattr(noise, name)], least=0)
    if not isinstance(noise.avalanche, bool):
        raise ValueError(f"noise.avalanche must be true or false, got {noise.avalanche!r}")
    check_rows("noise.kernel", noise.kernel)
    if found.halo.profile != []:  # no halo
        check_numbers("halo.profile", found.halo.profile)
    if axial is None and ndim == 3:
        raise ValueError("axial must be there for stacks, got null")
    if axial is not None:
        check_numbers("axial.elongation", axial.elongation, count=2, least=0)
        check_numbers("axial.u", axial.u, least=0)
        check_numbers("axial.profile", axial.profile, count=len(axial.u))
        check_numbers("axial.haze_um", axial.haze_um, count=2, least=0, above=0 if axial.haze else float("-inf"))
        for name in ("diameter_um", "section", "glow", "glow_um", "haze", "haze_slope"):
            check_numbers(f"axial.{name}", [getattr(axial, name)], least=0)
    for name in ("share", "length_um", "roughness", "roughness_px") if found.glow else ():
        check_numbers(f"glow.{name}", [getattr(found.glow, name)], least=0)
    check_numbers("cells_per_image", found.cells_per_image, least=0, whole=True)
    if found.region_um is not None:
        check_numbers("region_um", found.region_um, count=ndim, above=0)
    for name in ("region_shift_um", "region_shell"):  # or empty: in the middle, and all of it
        each = getattr(found, name)
        if not isinstance(each, list) or (each and len(each) != len(found.cells_per_image)):
            raise ValueError(f"{name} must be as long as cells_per_image, or empty")
    for shift in found.region_shift_um:
        check_numbers("region_shift_um", shift, count=ndim)
    for shell in found.region_shell:
        check_numbers("region_shell", shell, count=2, least=0)
        if shell[1] <= shell[0]:
            raise ValueError(f"region_shell must be pairs of an inner factor and a larger outer one, got {shell}")
    if found.middles_um != []:  # no layer
        if ndim == 2:
            raise ValueError("middles_um must be empty for planes")
        check_numbers("middles_um", found.middles_um, least=0)
    check_numbers("clustering_probability", [found.clustering_probability], least=0, most=1)
    check_numbers("cell_area_um2", found.cell_area_um2, above=0)
    cells, images = len(found.cell_area_um2), len(found.cells_per_image)
    check_numbers("cell_brightness", found.cell_brightness, count=cells)
    check_numbers("cell_image", found.cell_image, count=cells, least=0, most=images - 1, whole=True)
    if found.image_clustering != []:  # every image as the whole
        check_numbers("image_clustering", found.image_clustering, count=images, least=0, most=1)
    if found.image_level != []:  # drawn from the background's levels
        check_numbers("image_level", found.image_level, count=images)
