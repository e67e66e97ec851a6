"""Microscopes around the fitted one: what differs from image to image, by how much at most, and why."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cascade.geometry.resample import at_slices
from cascade.optics.background import Background
from cascade.optics.noise import Noise
from cascade.optics.statistics import Statistics
from cascade.optics.window import Window
from cascade.rng import stream

# The widest ranges, those of `vary` 1; with less they shrink, on a logarithmic scale where they are factors. They are
# wide on purpose (Tobin et al., IROS 2017; Billot et al., Medical Image Analysis 86, 2023): real microscopes shall lie
# within them.

EXPOSURE = 4.0
"""Factor, or its inverse, on the photons: lamps and exposure times differ by more, but beyond it cells drown in noise
or the camera is full."""

GAIN = 2.0
"""Factor, or its inverse, on camera units a photon, of which today's cameras give between 0.5 and 4."""

OFFSET = 0.05
"""Of the intensity window's span, added or taken off: cameras add nothing (8 bits), 100 (sCMOS) or some hundreds."""

BACKGROUND = (-0.1, 0.4)
"""Added to the background, in light of a typical cell: from a medium that does not shine, below which it never falls,
to cells that are little more than twice as bright as what lies around them."""

BLUR_PX = 1.0
"""σ of a Gaussian in the plane, in pixels: pixels are chosen about as large as the microscope's own σ (Nyquist), so
this is half as much again of blur (√2), as of a lower aperture or a poor focus."""

BLUR_Z = 2.0
"""How much longer, in µm, that σ is along z: a microscope resolves two to four times less there."""

ATTENUATION_PER_UM = 0.01
"""Of light, with depth from either side: a scattering length of tissue is 50 to 200 µm (Jacques, Phys. Med. Biol. 58,
2013)."""

SLICES = (2 / 3, 2.0)
"""Factors on the distance of slices: 1.75 µm become 1.2 to 3.5."""


@dataclass(frozen=True)
class Microscope:
    """What differs from the fitted microscope; without arguments, nothing does.

    exposure: factor on photons. gain: factor on camera units a photon. offset: camera units added. background: added to
    it, in light of a typical cell. blur_px: σ in the plane, in pixels. attenuation_per_um: share of light lost a µm
    from the first slice on, below 0 from the last. slice_um: distance of slices, None for the fitted one.
    """

    exposure: float = 1.0
    gain: float = 1.0
    offset: float = 0.0
    background: float = 0.0
    blur_px: float = 0.0
    attenuation_per_um: float = 0.0
    slice_um: float | None = None

    def record(self) -> dict[str, float]:
        """What differs, by name."""
        fitted = asdict(Microscope())
        return {name: value for name, value in asdict(self).items() if value != fitted[name]}

    def dimmed(self, light: npt.NDArray[Any], spacing_um: tuple[float, ...]) -> npt.NDArray[Any]:
        """Light (Z, Y, X) as it gets out of the depth; planes have none."""
        if light.ndim == 2 or not self.attenuation_per_um:
            return light
        depth_um = np.arange(len(light)) * spacing_um[0]
        depth_um = depth_um if self.attenuation_per_um > 0 else depth_um[::-1]
        left = np.exp(-abs(self.attenuation_per_um) * depth_um).astype(np.float32)
        return light * left[:, None, None]

    def light(self, light: npt.NDArray[Any], spacing_um: tuple[float, ...]) -> npt.NDArray[Any]:
        """Cells' light (Y, X) or (Z, Y, X) at the fitted spacing as this microscope passes it to the camera: dimmed by
        depth, blurred, at its own slices, in its camera units."""
        light = self.dimmed(light, spacing_um)
        if self.blur_px:
            along = [BLUR_Z * self.blur_px * spacing_um[-1] / length for length in spacing_um[:-2]]
            light = ndimage.gaussian_filter(light, [*along, self.blur_px, self.blur_px], mode="nearest")
        if self.slice_um is not None and light.ndim == 3:
            light = at_slices(light, spacing_um[0], self.slice_um)
        return light * np.float32(self.exposure * self.gain)

    def noise(self, noise: Noise) -> Noise:
        """The camera's: photons' variance grows with the gain twice, as signal and as spread (EMVA 1288, Eq. 7)."""
        return replace(
            noise,
            offset=noise.offset + self.offset,
            read_variance=noise.read_variance * self.gain**2,
            gain=noise.gain * self.gain,
            read_sd=noise.read_sd * self.gain,
        )

    def level(self, level: float, statistics: Statistics) -> float:
        """A background level as this microscope shows it, both camera units."""
        dark = statistics.noise.offset
        typical = float(np.median(statistics.cell_brightness)) - statistics.background.level
        added = max(level + self.background * max(typical, 0.0), min(level, dark))
        return dark + self.offset + self.exposure * self.gain * (added - dark)

    def field(self, level: float, statistics: Statistics) -> Background:
        """A background whose field and haze are as strong, beside a level, as they were beside the fitted one."""
        own, dark = statistics.background, statistics.noise.offset
        factor = self.exposure * self.gain
        if level > dark:
            factor = (self.level(level, statistics) - dark - self.offset) / (level - dark)
        return replace(own, field_sd=own.field_sd * factor, haze_sd=own.haze_sd * factor)

    def of_sketch(
        self, sketch: npt.NDArray[Any], cells: npt.NDArray[Any], spacing_um: tuple[float, ...]
    ) -> npt.NDArray[Any]:
        """A sketch, of several channels (C, …), whose cells are where `cells` is true, on this microscope's background
        and dimmed by depth."""
        if sketch.ndim > cells.ndim:
            return np.stack([self.of_sketch(one, cells, spacing_um) for one in sketch])
        if not (self.background or self.attenuation_per_um) or not cells.any() or cells.all():
            return sketch
        ground = np.median(sketch[~cells])
        added = self.background * max(float(np.median(sketch[cells]) - ground), 0.0)
        return np.asarray(ground + added + self.dimmed(sketch - ground, spacing_um), np.float32)

    def of_image(self, image: npt.NDArray[Any], windows: Sequence[Window]) -> npt.NDArray[Any]:
        """An image with noise, of several channels (C, …), with this microscope's gain and offset.

        windows: of each channel, dark at their lower ends; the offset is the widest one's, and others' as much smaller.
        """
        if self.gain == 1 and not self.offset:
            return image
        if len(windows) > 1:
            offsets = [self.offset * one.span / widest(windows).span for one in windows]
            each = zip(image, windows, offsets, strict=True)
            return np.stack([replace(self, offset=offset).of_image(part, [one]) for part, one, offset in each])
        dark = windows[0].low
        return dark + self.offset + self.gain * (image - dark)


def widest(windows: Sequence[Window]) -> Window:
    """The one that spans most camera units."""
    return max(windows, key=lambda window: window.span)


def draw_microscope(
    vary: float,
    seed: int,
    index: int,
    window: Window,
    dtype: str,
    spacing_um: tuple[float, ...],
    *,
    noise_is_there: bool = False,
) -> Microscope | None:
    """The microscope of image `index`, within `vary` of the widest ranges around the fitted one; None for `vary` 0.

    window, dtype, spacing_um: of the fitted images, y x or z y x; the window's end does not leave the dtype. Planes
    have neither depth nor slices. noise_is_there: of pictures that are painted with it only gain, offset, background
    and dimming with depth are varied.

    >>> draw_microscope(0.5, 7, 0, Window(100, 2000), "uint16", (0.5, 0.5)).exposure <= 2
    True
    """
    if vary == 0:
        return None
    shares = stream(seed, "microscope", index).random(7)  # in [0, 1)

    def factor(share: float, low: float, high: float) -> float:
        return float(np.exp(vary * (np.log(low) + share * np.log(high / low))))

    exposure = 1.0 if noise_is_there else factor(shares[0], 1 / EXPOSURE, EXPOSURE)
    gain = factor(shares[1], 1 / GAIN, GAIN)
    span, room = window.span, _highest(dtype) - window.low
    low, high = BACKGROUND
    deep = len(spacing_um) == 3
    return Microscope(
        exposure=exposure,
        gain=min(gain, max(room / span, 1.0) / exposure),
        offset=float(vary * OFFSET * span * (2 * shares[2] - 1)),
        background=float(vary * (low + shares[3] * (high - low))),
        blur_px=0.0 if noise_is_there else float(vary * BLUR_PX * shares[4]),
        attenuation_per_um=float(vary * ATTENUATION_PER_UM * (2 * shares[5] - 1)) if deep else 0.0,
        slice_um=spacing_um[0] * factor(shares[6], *SLICES) if deep and not noise_is_there else None,
    )


def _highest(dtype: str) -> float:
    """The largest number of images of a dtype, those of floats being written as uint16."""
    kind = np.dtype(dtype)
    return float(np.iinfo(kind if kind.kind == "u" else np.uint16).max)
