import numpy as np
import pytest
from conftest import ellipse
from test_tiles import bank, statistics

from cascade.bank import draw_uses, read_cells, stored_bank, turned, used, write_cells
from cascade.grid import Grid, voxelize
from cascade.population import Cell
from cascade.scene import Scene


def test_turned_cells_are_the_same_cell():
    (cell, *_) = bank(2)
    seen = set()
    for symmetry in range(8):
        other = turned(cell, symmetry)
        assert other.mask.sum() == cell.mask.sum()
        np.testing.assert_array_equal(other.signal > 0, other.mask)
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
    cell = Cell(mask, mask.astype(np.float32), (4.0, 8.0, 8.0), {"solid": solid, "outline": mask[4]})
    other = turned(cell, symmetry)
    np.testing.assert_array_equal(voxelize(other.info["solid"], grid).array, other.mask)
    np.testing.assert_array_equal(other.info["outline"], other.mask[4])


def test_every_cell_is_used_equally_often_and_as_bright_as_asked():
    scene = Scene((64, 64), None, 12, 0, 100.0, 0.5)
    uses = draw_uses(bank(2), scene, statistics(2), 1, 0)
    assert sorted(np.bincount([use.cell for use in uses])) == [2, 2, 2, 3, 3]
    cell = used(bank(2), uses[0], 100.0)
    # The statistics know one brightness, 500 on a level of 100; the bank's cells have 300.
    assert cell.info["brightness"] == pytest.approx(500.0)
    original = bank(2)[uses[0].cell]
    assert cell.signal.sum() == pytest.approx(2 * original.signal.sum())
    assert (cell.info["bank"], cell.info["symmetry"]) == uses[0][:2]
    assert draw_uses(bank(2), scene, statistics(2), 1, 0) == uses
    assert draw_uses(bank(2), scene, statistics(2), 1, 1) != uses
    with pytest.raises(ValueError, match="the bank is empty"):
        draw_uses([], scene, statistics(2), 1, 0)


def test_stored_cells_come_back(tmp_path):
    cells = bank(3)
    cells[0].info.update(outline=ellipse((9, 9), (4, 4), (3, 2), 0.0), solid=lambda p: p)
    write_cells(cells, tmp_path / "cells.safetensors")
    back = read_cells(tmp_path / "cells.safetensors")
    assert len(back) == len(cells)
    for a, b in zip(cells, back, strict=True):
        np.testing.assert_array_equal(a.mask, b.mask)
        np.testing.assert_array_equal(a.signal, b.signal)
        assert a.centre == b.centre
    assert "solid" not in back[0].info
    np.testing.assert_array_equal(back[0].info["outline"], cells[0].info["outline"])


def test_a_bank_is_the_same_whoever_makes_which_part(tmp_path):
    calls = []

    def make(part, size):
        calls.append(part)
        mask = ellipse((15, 15), (7, 7), (5, 4), 0.1 * part)
        return [Cell(mask, (part + n) * mask.astype(np.float32), (7.0, 7.0), {"brightness": 1.0}) for n in range(size)]

    alone = stored_bank(tmp_path / "alone", 70, make)
    assert calls == [0, 1, 2]
    assert len(alone) == 70
    stored_bank(tmp_path / "alone", 70, make)
    assert len(calls) == 3  # nothing is made twice
    calls.clear()
    (tmp_path / "shared").mkdir()
    write_cells(make(2, 6), tmp_path / "shared" / "000002.safetensors")  # another process was quick
    shared = stored_bank(tmp_path / "shared", 70, make, rank=1, world=2)
    assert calls == [2, 1, 0]  # its own part first, then what is missing
    assert all(np.array_equal(a.signal, b.signal) for a, b in zip(alone, shared, strict=True))
    assert (tmp_path / "alone" / "000002.safetensors").read_bytes() == (
        tmp_path / "shared" / "000002.safetensors"
    ).read_bytes()
