from dataclasses import replace

import numpy as np
import pytest
from conftest import ellipse
from made_up import bank, small_statistics

from cascade.annotation import CellRecord
from cascade.geometry.grid import Grid, voxelize
from cascade.population.bank import draw_uses, read_cells, stored_bank, turned, used, write_cells
from cascade.population.cells import solid_slices
from cascade.population.compositing import Cell
from cascade.population.room import Room
from cascade.population.scene import Scene


def test_turned_cells_are_the_same_cell():
    (cell, *_) = bank(2)
    seen = set()
    for symmetry in range(8):
        other = turned(cell, symmetry)
        assert other.mask.sum() == cell.mask.sum()
        np.testing.assert_array_equal(np.sort(other.signal[other.mask]), np.sort(cell.signal[cell.mask]))
        np.testing.assert_array_equal(np.sort(other.signal[~other.mask]), np.sort(cell.signal[~cell.mask]))
        np.testing.assert_allclose(np.argwhere(other.mask).mean(0), other.centre, atol=0.3)
        seen.add(other.mask.tobytes() + bytes(other.mask.shape))
    assert len(seen) == 8


@pytest.mark.parametrize("symmetry", range(8))
def test_a_turned_solid_is_that_of_the_turned_voxels(symmetry):
    """A solid without any symmetry, voxelised before and after."""

    def solid(points):
        z, y, x = np.asarray(points).T
        return (z / 3) ** 2 + ((y - 0.7) / 5) ** 2 + ((x + 0.4 * y) / 3) ** 2 - 1

    grid = Grid.centred((9, 17, 17), (1.0, 1.0, 1.0))
    mask = voxelize(solid, grid).array
    cell = Cell(mask, mask.astype(np.float32), (4.0, 8.0, 8.0), CellRecord(solid=solid, outline=mask[4]))
    other = turned(cell, symmetry)
    np.testing.assert_array_equal(voxelize(other.record.solid, grid).array, other.mask)
    np.testing.assert_array_equal(other.record.outline, other.mask[4])


def test_cells_are_as_large_and_as_bright_as_those_of_a_real_image():
    """Two real images: twenty small faint cells, ten large bright ones; a bank of a hundred sizes."""
    real = replace(
        small_statistics(2), cells_per_image=[20, 10], cell_image=[0] * 20 + [1] * 10,
        cell_area_um2=[*np.linspace(10, 20, 20), *np.linspace(90, 99, 10)], cell_brightness=[200.0] * 20 + [900.0] * 10,
    )  # fmt: skip
    masks = [ellipse((33, 33), (16, 16), (r, r), 0.0) for r in np.linspace(4, 15, 96)]
    cells = [Cell(m, 100.0 * m.astype(np.float32), (16.0, 16.0), CellRecord(brightness=300.0)) for m in masks]
    for like, light, sizes in ((0, 100.0, (0, 72)), (1, 800.0, (56, 96))):
        scene = Scene((64, 64), Room(), 40, like, 100.0, 0.5)
        uses = draw_uses(cells, scene, real, 1, 0)
        assert all(sizes[0] <= use.cell < sizes[1] for use in uses)
        assert np.bincount([use.cell for use in uses]).max() <= 4
        for use in uses[:3]:
            cell = used(cells, use, 100.0)
            assert cell.record.brightness == pytest.approx(100 + light)
            assert cell.signal.sum() == pytest.approx(cells[use.cell].signal.sum() * light / 200)
            assert (cell.record.bank, cell.record.symmetry) == use[:2]
    assert draw_uses(cells, scene, real, 1, 0) == uses
    assert draw_uses(cells, scene, real, 1, 1) != uses
    with pytest.raises(ValueError, match="the bank is empty"):
        draw_uses([], scene, real, 1, 0)


def test_stored_cells_come_back(tmp_path):
    cells = bank(3)
    known = replace(cells[0].record, outline=ellipse((9, 9), (4, 4), (3, 2), 0.0), solid=lambda p: p)
    cells[0] = replace(cells[0], record=known)
    write_cells(cells, tmp_path / "cells.safetensors")
    back = read_cells(tmp_path / "cells.safetensors")
    assert len(back) == len(cells)
    for a, b in zip(cells, back, strict=True):
        np.testing.assert_array_equal(a.mask, b.mask)
        np.testing.assert_array_equal(a.signal, b.signal)
        assert a.centre == b.centre
    assert back[0].record.solid is None
    np.testing.assert_array_equal(back[0].record.outline, known.outline)


def test_a_bank_is_the_same_whoever_makes_which_part(tmp_path):
    calls = []

    def make(part, size):
        calls.append(part)
        mask = ellipse((15, 15), (7, 7), (5, 4), 0.1 * part)
        return [
            Cell(mask, (part + n) * mask.astype(np.float32), (7.0, 7.0), CellRecord(brightness=1.0))
            for n in range(size)
        ]

    alone = stored_bank(tmp_path / "alone", 70, make)
    assert calls == [0, 1, 2]
    assert len(alone) == 70
    stored_bank(tmp_path / "alone", 70, make)
    assert len(calls) == 3  # nothing is made twice
    calls.clear()
    assert len(stored_bank(tmp_path / "wide", 70, make, together=64)) == 70
    assert calls == [0, 1]
    assert len(stored_bank(tmp_path / "wide", 70, make, together=8)) == 70  # gone on with as it was begun
    assert calls == [0, 1]
    calls.clear()
    (tmp_path / "shared").mkdir()
    write_cells(make(2, 6), tmp_path / "shared" / "000002.safetensors")  # another process was quick
    shared = stored_bank(tmp_path / "shared", 70, make, rank=1, world=2)
    assert calls == [2, 1, 0]  # its own part first, then what is missing
    assert all(np.array_equal(a.signal, b.signal) for a, b in zip(alone, shared, strict=True))
    assert (tmp_path / "alone" / "000002.safetensors").read_bytes() == (
        tmp_path / "shared" / "000002.safetensors"
    ).read_bytes()


def test_where_pixels_are_not_square_cells_are_flipped_and_not_turned_by_a_quarter():
    (cell, *_) = bank(2)
    real = replace(small_statistics(2), spacing_um=(1.0, 0.5), cells_per_image=[40])
    uses = draw_uses([cell], Scene((64, 64), Room(), 40, 0, 100.0, 0.5), real, 1, 0)
    assert {use.symmetry for use in uses} == {0, 2, 4, 6}
    assert {used([cell], use, 100.0).mask.shape for use in uses} == {cell.mask.shape}


def test_a_solid_is_cut_whole_where_pixels_are_not_square():
    def ball(points):
        return np.linalg.norm(points, axis=1) - 10.0

    for spacing in ((1.0, 1.0, 0.5), (1.0, 0.5, 1.0), (1.0, 0.5, 0.5)):
        voxels = solid_slices(ball, 20.0, 64, 0.5, spacing).voxels
        reached = [np.ptp(np.flatnonzero(voxels.any(axes))) + 1 for axes in ((0, 2), (0, 1))]
        np.testing.assert_allclose(np.array(reached) * spacing[1:], 20.0, atol=1.1)
