from dataclasses import replace

import numpy as np
import pytest
from conftest import ellipse
from made_up import HALO, statistics
from scipy import ndimage

from cascade.annotation import CellRecord
from cascade.optics.camera import photograph_crops
from cascade.optics.window import Window
from cascade.population.cells import Slices, plane_slices, textured_cell
from cascade.population.picture import take_picture
from cascade.population.scene import plan_scene, real_cells
from cascade.population.settings import CascadeSettings


def cells_on_a_wrong_background(count, offset):
    """Textured cells whose crops are brighter than the data set's background by `offset`, to their very border."""
    made, window, rng = [], Window(0, 2000), np.random.default_rng(0)
    for n in range(count):
        mask = ellipse((48, 48), (24, 24), rng.uniform(7, 11, 2), n)
        light = 600 * ndimage.gaussian_filter(mask.astype(np.float32), 1.2)
        image = window.stretch(100 + offset + light)[None]
        slices = plane_slices(mask, 0.5, (0.5, 0.5))
        made.append(textured_cell(slices, image, np.array([600.0]), window, 100.0, HALO, 0.5, (0.5, 0.5), CellRecord()))
    return made


def test_no_frame_is_seen_around_a_cell():
    """Beyond its halo, a cell leaves background and noise as they are, even where its crop's background was wrong."""
    inside, near, far = [], [], []
    for index in range(6):
        scene = plan_scene(statistics(), CascadeSettings(), 0, index)
        sample = take_picture(cells_on_a_wrong_background(12, 30.0), scene, statistics(), 0, index, counts={})
        distance = ndimage.distance_transform_edt(sample.labels == 0)
        image = sample.image.astype(float)
        inside.append(image[distance == 0])
        near.append(image[(distance > HALO.radius_px + 1) & (distance < HALO.radius_px + 9)])
        far.append(image[distance > 25])
    near, far = np.concatenate(near), np.concatenate(far)
    assert np.concatenate(inside).mean() > 500
    assert len(far) > 10_000
    error = far.std() * np.sqrt(1 / len(near) + 1 / len(far))
    assert abs(near.mean() - far.mean()) < 4 * error
    assert near.std() == pytest.approx(far.std(), rel=0.02)


def test_tips_and_what_lies_beyond_are_out_of_focus():
    """There light continues the nearest wide slice, as faint as `light` says, while the labels stay as they are."""
    radii = [0, 2, 7, 8, 2, 0]
    masks = np.stack([ellipse((32, 32), (16, 16), (r, r), 0) if r else np.zeros((32, 32), bool) for r in radii])
    window, light = Window(0, 2000), np.array([20.0, 100.0, 400.0, 600.0, 150.0, 30.0])
    images = window.stretch(100 + np.random.default_rng(0).uniform(200, 700, masks.shape).astype(np.float32))
    slices = Slices(masks, masks, np.linspace(-1.5, 1.5, 6))
    cell = textured_cell(slices, images, light, window, 100.0, HALO, 0.5, (1.0, 0.5, 0.5), CellRecord())
    assert np.array_equal(cell.mask, masks)
    for z, nearest in ((0, 2), (1, 2), (4, 3), (5, 3)):
        np.testing.assert_allclose(cell.signal[z], cell.signal[nearest] * light[z] / light[nearest], rtol=1e-5)
    for z in (2, 3):
        assert cell.signal[z][masks[z]].mean() == pytest.approx(light[z], rel=1e-4)


def plan(real, region=None, **fields):
    return plan_scene(real, CascadeSettings(**fields), 0, 0, region=region)


def test_cells_scale_with_the_canvas_and_the_region():
    real = statistics()
    assert plan(real).num_cells == 12
    assert plan(real, canvas_size=(512, 256)).num_cells == 24
    half = np.zeros((256, 256), bool)
    half[:128] = True
    scene = plan(real, half)
    assert scene.canvas == (256, 256)
    assert scene.num_cells == 6
    embryo = statistics(
        spacing_um=(2.0, 0.5, 0.5), image_shape=(32, 128, 128), region_um=(16.0, 16.0, 16.0), cells_per_image=[20]
    )
    assert plan(embryo).num_cells == pytest.approx(20, abs=1)
    assert plan(embryo, canvas_size=(64, 256, 256)).num_cells == pytest.approx(20, abs=1)  # no larger than a real one
    assert plan(embryo, canvas_size=(32, 32, 128)).num_cells == pytest.approx(10, abs=1)
    tall = replace(embryo, region_um=(41.0, 16.0, 16.0))  # taller than the stack, as centres that fill it seem
    assert plan(tall).num_cells == pytest.approx(20, abs=1)
    on_glass = replace(embryo, region_um=None, middles_um=[2.0, 3.0])
    assert plan(on_glass, canvas_size=(16, 256, 128)).num_cells == 40  # a thinner stack shows as many
    assert plan(on_glass).room.middles.tolist() == [1, 1.5]
    assert plan(on_glass, canvas_size=(1, 128, 128)).room.middles.tolist() == [0, 0]  # squeezed into it
    colony = plan(replace(on_glass, region_um=(3.0, 16.0, 16.0)), canvas_size=(16, 256, 256))
    assert colony.num_cells == pytest.approx(20, abs=1)
    assert colony.room.region.sum() == pytest.approx(np.pi * 32**2, rel=0.01)
    bottom = np.zeros((32, 128, 128), bool)
    bottom[0, :64] = True  # half of the glass
    assert plan(on_glass, bottom).num_cells == 10
    assert plan(on_glass, bottom).room.region.shape == (128, 128)
    with pytest.raises(ValueError, match="they must be equal"):
        plan(real, half, canvas_size=(64, 64))
    with pytest.raises(ValueError, match="region is empty"):
        plan(real, np.zeros((256, 256)))
    with pytest.raises(ValueError, match="max_overlap"):
        plan(real, max_overlap=1.5)
    with pytest.raises(ValueError, match="cells_per_image"):
        plan(real, cells_per_image=0)


def test_crops_are_photographed_whatever_their_pixels():
    """0.4 µm come back from 0.65 µm as one pixel less."""
    real = statistics(spacing_um=(0.65, 0.65))
    masks = np.zeros((1, 64, 64), bool)
    masks[:, 20:40, 20:40] = True
    seen = photograph_crops(np.full((1, 64, 64), 0.5, np.float32), masks, real, 0.4, np.random.default_rng(0))
    assert seen.shape == (1, 64, 64)
    assert seen[masks].std() > 0


def test_few_annotated_cells_are_helped_out_by_images_like_theirs():
    """Embryos of few bright and of many faint cells, two annotated in each: the help comes from one's own kind."""
    numbers = [5, 40] * 8
    real = statistics(
        cells_per_image=numbers, cell_image=[n for n in range(16) for _ in range(2)],
        cell_area_um2=[100.0] * 32, cell_brightness=[900.0, 900.0, 200.0, 200.0] * 8,
    )  # fmt: skip
    for like in range(16):
        cells = real_cells(real, like, 30, np.random.default_rng(like))
        assert all(real.cell_image[n] % 2 == like % 2 for n in cells)
        assert like in [real.cell_image[n] for n in cells]
    assert len(set(real_cells(real, None, 32, np.random.default_rng(0)))) == 32
    alone = replace(real, cell_image=[0] * 16 + [2] * 16)  # of the others nothing but the number is known
    few = replace(real, cell_image=[0, 0, 1], cell_area_um2=[100.0] * 3, cell_brightness=[900.0, 900.0, 200.0])
    assert set(real_cells(few, None, 9, np.random.default_rng(0))) <= {0, 1, 2}
    assert len(real_cells(alone, 1, 5, np.random.default_rng(0))) == 5


@pytest.mark.parametrize(
    ("spacing", "shape", "own"),
    [((0.5, 0.5), (200, 240), (40.0, 30.0)), ((2.0, 0.5, 0.5), (40, 120, 100), (35.0, 25.0, 20.0))],
)
def test_a_region_as_large_as_the_real_ones_holds_as_many_cells(spacing, shape, own):
    given = statistics(spacing_um=spacing, image_shape=shape, region_um=own, cells_per_image=[50])
    scene = plan(given)
    assert scene.room.region.sum() < 0.8 * np.prod(shape)
    assert scene.num_cells == pytest.approx(50, abs=2)
