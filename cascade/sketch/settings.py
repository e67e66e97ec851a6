"""What a sketch looks like: the numbers of the rules by which an annotation becomes a rough drawing."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cascade.draws import check_quantiles
from cascade.files import BrokenRecord, read_record, replacing
from cascade.settings import check_fields, positive

Structure = Literal["cells", "membranes"]


@dataclass(frozen=True, kw_only=True)
class SketchSettings:
    """Intensities are camera units, those of the raw images, lengths µm. What is drawn is given by its quantiles: one
    number, a range, or evenly spaced ones.

    >>> settings = SketchSettings(brightness=(100.0, 400.0), nucleoli=(-0.5, 2.5))
    >>> SketchSettings(**json.loads(json.dumps(settings.record()))) == settings
    True
    >>> SketchSettings(brightness=(400.0, 100.0))
    Traceback (most recent call last):
    ValueError: brightness must be numbers that do not fall: one, a range of two, or quantiles; got 400 100
    """

    structure: Structure = "cells"
    """cells: each cell is filled with light; membranes: light is on the borders between them."""
    brightness: tuple[float, ...] = (500.0, 2000.0)
    """Light above the background: mean of a cell over its middle plane, of membranes over their thickness; below 0
    cells are dark. A brightness that an annotation gives wins, on the median background."""
    brightness_shared: float = 0.0
    """How alike the cells of one image are in brightness: share of the variance that lies between images."""
    background: tuple[float, ...] = (200.0,)
    """Level of an image where there is no cell."""
    field_sd: float = 0.0
    """Standard deviation of the slow field of the background."""
    field_um: float = 50.0
    """Its length."""
    profile: tuple[float, ...] = (1.0,)
    """Relative light at evenly spaced depths, from a cell's rim to its middle."""
    axial_profile: tuple[float, ...] = (1.0,)
    """In stacks, times that: relative light at evenly spaced heights, from a cell's ends along z, where the microscope
    blurs most, to its middle plane."""
    glow: tuple[float, ...] = ()
    """Shares of their light that cells or membranes cast around them, sharp and wide."""
    glow_um: tuple[float, ...] = ()
    """How far each goes: standard deviation of a Gaussian."""
    glow_axial: float = 1.0
    """So many times as far it goes along z, of cells in stacks."""
    nucleoli: tuple[float, ...] = (0.0,)
    """Dark spots of a cell, rounded, where the annotation does not say; -0.5 2.5 are none, one or two equally often."""
    nucleolus_radius: tuple[float, ...] = (0.1, 0.2)
    """Their radius, in that of the cell."""
    nucleolus_light: tuple[float, ...] = (0.3,)
    """What is left of the light in them."""
    axial_decay: float = 0.0
    """Share of the light that is lost with each µm along z, linearly; below 0: won."""
    radial_decay: float = 0.0
    """Share of the light that is lost at the deepest place of the organism, linearly from its surface; below 0: won."""
    overlap: float = 0.0
    """Share by which each further cell on a pixel darkens it, of annotations in layers; the paper's is 0.1."""
    thickness_um: float = 0.5
    """Of membranes."""
    softness_um: float = 0.0
    """Standard deviation of the Gaussian that membranes are blurred with."""
    interior: tuple[float, ...] = (0.0,)
    """Light inside cells with membranes, in that of the membranes."""
    wall_light: tuple[float, ...] = (1.0,)
    """Of each membrane between two cells, above that of the inside, in that of the cells' membranes."""
    dtype: Literal["uint8", "uint16"] = "uint16"
    """Of the raw images."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_quantiles("brightness", self.brightness)
        check_quantiles("background", self.background)
        check_quantiles("nucleoli", self.nucleoli, least=-0.5, most=20)
        check_quantiles("nucleolus_radius", self.nucleolus_radius, above=0, most=0.5)
        check_quantiles("nucleolus_light", self.nucleolus_light, least=0)
        check_quantiles("interior", self.interior)
        check_quantiles("wall_light", self.wall_light, least=0)
        positive(self, "field_um", "thickness_um", "glow_axial")
        _within(self, 0, 1, "brightness_shared", "overlap")
        _within(self, 0, 1e9, "field_sd", "softness_um")
        _within(self, -1e3, 1e3, "axial_decay")
        _within(self, -1e3, 1, "radial_decay")
        for name in ("profile", "axial_profile"):
            values = getattr(self, name)
            if not values or not all(0 <= value < 1e3 for value in values) or not any(values):
                raise ValueError(f"{name} must be numbers from 0, not all of them 0, got {_shown(values)}")
        if len(self.glow) != len(self.glow_um):
            raise ValueError(f"glow has {len(self.glow)} shares, `glow_um` {len(self.glow_um)} lengths: give as many")
        if not all(0 <= share < 1e3 for share in self.glow) or not all(0 < length < 1e9 for length in self.glow_um):
            raise ValueError(
                f"glow must be shares from 0 and `glow_um` lengths above 0, got {_shown(self.glow)} and "
                f"{_shown(self.glow_um)}"
            )

    def record(self) -> dict[str, Any]:
        """Plain numbers and lists by name: `SketchSettings(**record)` gives them back."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def save(self, path: Path) -> None:
        """Write them as JSON."""
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(self.record(), indent=1))

    @classmethod
    def load(cls, path: Path) -> "SketchSettings":
        """Inverse of `save`. Raises ValueError, naming the file, for what holds no such settings."""
        try:
            return cls(**read_record(path, "make it anew with 'cascade sketch --like IMAGES'"))  # type: ignore[arg-type]
        except FileNotFoundError as error:
            raise ValueError(f"{path}: there is no such file") from error
        except BrokenRecord:
            raise
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: holds no settings of sketches ({error})") from error


def _within(settings: object, low: float, high: float, *names: str) -> None:
    for name in names:
        if not low <= (value := getattr(settings, name)) <= high:
            raise ValueError(f"{name} must be from {low:g} to {high:g}, got {value:g}")


def _shown(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values) or "none"
