"""Between the stages: outlines and solids to slices, slices with texture to cells that a population can be made of."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from cascade.annotation import CellRecord
from cascade.geometry.grid import Grid, SignedDistance, signed_distance, voxelize
from cascade.geometry.masks import largest_piece
from cascade.geometry.resample import fitted, resample, unresampled
from cascade.neus.fit import NeuSFit
from cascade.optics.axial import Axial
from cascade.optics.halo import Halo, fade
from cascade.optics.window import Window
from cascade.population.compositing import Cell

_TIP = 0.3  # of the widest slice's area: what is smaller is lit by the rest of the cell


@dataclass(frozen=True)
class Slices:
    """One cell cut into planes: `masks` (S, H, W) bool at the texture model's pixels, `voxels` (S, h, w) bool at the
    data set's spacing, same centre; `height` (S,) relative to the cell's half height, 0 in its middle. A plane cell
    has S = 1."""

    masks: npt.NDArray[Any]
    voxels: npt.NDArray[Any]
    height: npt.NDArray[Any]

    @property
    def in_focus(self) -> npt.NDArray[Any]:
        """Which planes are given texture of their own, (S,) bool: not those of the small tips, nor those beyond."""
        area = self.masks.sum((1, 2))
        return (area > 0) & (area >= _TIP * area.max())


def plane_slices(mask: npt.NDArray[Any], pixel_um: float, spacing_um: tuple[float, ...]) -> Slices:
    """An outline (H, W) as the single slice of a 2D cell."""
    voxels = mask
    if not np.allclose(spacing_um, pixel_um, rtol=1e-3):
        voxels = resample(signed_distance(mask, (1, 1)), (pixel_um,) * 2, spacing_um) < 0
    return Slices(mask[None], voxels[None], np.zeros(1))


def solids_um(fit: NeuSFit, unit_um: npt.NDArray[Any], elongation: npt.NDArray[Any]) -> list[SignedDistance]:
    """Fitted solids as signed-distance callables in µm, (P, 3) zyx -> (P,), stretched along z by `elongation` (B,).

    The views know nothing of the microscope's blur along z; the stretch brings in how much taller than wide the data
    set's cells appear. Where it is not 1 the sign stays exact and the size is a distance in the unstretched frame.
    """

    device = fit.residual.device

    def solid(cell: int) -> SignedDistance:
        inner = fit.solid(cell)
        scale = torch.tensor([unit_um[cell] * elongation[cell], unit_um[cell], unit_um[cell]], dtype=torch.float32)

        @torch.no_grad()
        def sdf(points: npt.NDArray[Any]) -> npt.NDArray[Any]:
            local = torch.from_numpy(np.asarray(points, np.float32)) / scale
            return (inner(local.to(device)).cpu() * unit_um[cell]).numpy()

        return sdf

    return [solid(cell) for cell in range(len(unit_um))]


def solid_slices(
    sdf: SignedDistance, height_um: float, size: int, pixel_um: float, spacing_um: tuple[float, ...]
) -> Slices:
    """Cut a solid at the data set's slice distance; `height_um` is a bound on its total height.

    The light of a cell reaches beyond its top and bottom, so the planes cover twice its height.
    """
    reach = Grid.covering((2 * height_um, 0, 0), spacing_um).shape[0]
    sides = [round(size * pixel_um / side_um) for side_um in spacing_um[1:]]
    voxels = largest_piece(voxelize(sdf, Grid.centred((reach, *sides), spacing_um)).array)  # voxels miss thin necks
    masks = largest_piece(voxelize(sdf, Grid.centred((reach, size, size), (spacing_um[0], pixel_um, pixel_um))).array)
    filled = np.flatnonzero(masks.any((1, 2)))
    if not len(filled):
        return Slices(masks, voxels, np.zeros(reach))
    middle, half = 0.5 * (filled[0] + filled[-1]), 0.5 * (filled[-1] - filled[0] + 1)
    return Slices(masks, voxels & masks.any((1, 2))[:, None, None], (np.arange(reach) - middle) / half)


def slice_light(slices: Slices, light: float, axial: Axial | None) -> npt.NDArray[Any]:
    """Mean light above background of every slice, (S,), from that of the middle plane: both camera units."""
    return np.full(len(slices.masks), light) if axial is None else light * axial.at(slices.height)


def textured_cell(
    slices: Slices,
    images: npt.NDArray[Any],
    light: npt.NDArray[Any],
    window: Window,
    level: float,
    halo: Halo,
    pixel_um: float,
    spacing_um: tuple[float, ...],
    record: CellRecord,
) -> Cell:
    """Join a cell's textured slices (S, H, W) in [0, 1] into a Cell at the data set's spacing.

    Each slice is scaled to its wanted mean `light` (S,), so that brightness neither drifts nor flickers along z;
    outside the outline it fades to nothing over the data set's halo. Near its top and bottom, where the outline is
    small, and beyond them a cell is seen out of focus: slices there continue the last wide one, at the light that
    `light` says.
    """
    signal = (window.restore(images) - level).astype(np.float32)
    reach = halo.radius_px * spacing_um[-1] / pixel_um
    focused = np.flatnonzero(slices.in_focus)
    for z in focused:
        signal[z] = confined(signal[z], slices.masks[z], light[z], reach)
    for z in np.flatnonzero(~slices.in_focus):
        signal[z] = 0
        if len(focused):
            nearest = focused[np.abs(focused - z).argmin()]
            signal[z] = signal[nearest] * (light[z] / max(light[nearest], 1e-6))
    if not np.allclose(spacing_um[-2:], pixel_um, rtol=1e-3):
        signal = fitted(unresampled(signal, (pixel_um,) * 2, spacing_um[-2:]), slices.voxels.shape[1:])
    used = np.flatnonzero(np.abs(signal).max((1, 2)) > 1e-3)
    span = slice(used[0], used[-1] + 1) if len(used) else slice(0, len(signal))
    voxels = slices.voxels[span]
    centre = tuple(0.5 * (n - 1) for n in slices.voxels.shape)
    centre = (centre[0] - span.start, *centre[1:])
    if len(spacing_um) == 2:
        return Cell(voxels[0], signal[0], centre[1:], record)
    return Cell(voxels, signal[span], centre, record)


def confined(signal: npt.NDArray[Any], mask: npt.NDArray[Any], light: float, reach_px: float) -> npt.NDArray[Any]:
    """A slice's light above background (H, W), faded to nothing `reach_px` beyond its mask and scaled to the mean
    `light` inside, by no more than a factor of three."""
    faded = signal * fade(ndimage.distance_transform_edt(~mask), reach_px)
    return faded * np.clip(light / max(float(faded[mask].mean()), 1e-3), 0.3, 3.0)
