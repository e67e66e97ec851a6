import numpy as np
import pytest
from conftest import ellipse
from scipy import ndimage

from cascade.background import Background, Noise
from cascade.cells import plane_slices, textured_cell
from cascade.data.crops import Halo
from cascade.data.statistics import Statistics
from cascade.intensity import Window
from cascade.scene import plan_scene, take_picture

HALO = Halo([0.3, 0.15, 0.05])


def statistics(**changes):
    options = dict(
        source="made up", licence="none", spacing_um=(0.5, 0.5), image_shape=(256, 256), dtype="uint16",
        window=Window(0, 2000), background=Background([100.0], 0.0, 40.0, 0.0, 3.0),
        noise=Noise(60.0, 4.0, 0.5, [[1.0]]), halo=HALO, axial=None, cells_per_image=[12], region_um=None,
        clustering_probability=0.3, cell_area_um2=[60.0], cell_brightness=[700.0], cell_image=[0],
    )  # fmt: skip
    return Statistics(**(options | changes))


def cells_on_a_wrong_background(count, offset):
    """Textured cells whose crops are brighter than the data set's background by `offset`, to their very border."""
    made, window, rng = [], Window(0, 2000), np.random.default_rng(0)
    for n in range(count):
        mask = ellipse((48, 48), (24, 24), rng.uniform(7, 11, 2), n)
        light = 600 * ndimage.gaussian_filter(mask.astype(np.float32), 1.2)
        image = window.stretch(100 + offset + light)[None]
        slices = plane_slices(mask, 0.5, (0.5, 0.5))
        made.append(textured_cell(slices, image, np.array([600.0]), window, 100.0, HALO, 0.5, (0.5, 0.5), {}))
    return made


def test_no_frame_is_seen_around_a_cell():
    """Beyond its halo, a cell leaves background and noise as they are, even where its crop's background was wrong."""
    inside, near, far = [], [], []
    for index in range(6):
        scene = plan_scene(statistics(), 0, index)
        sample = take_picture(cells_on_a_wrong_background(12, 30.0), scene, statistics(), 0, index, {})
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


def test_cells_scale_with_the_canvas_and_the_region():
    real = statistics()
    assert plan_scene(real, 0, 0).cells == 12
    assert plan_scene(real, 0, 0, (512, 256)).cells == 24
    half = np.zeros((256, 256), bool)
    half[:128] = True
    scene = plan_scene(real, 0, 0, region=half)
    assert scene.canvas == (256, 256)
    assert scene.cells == 6
    embryo = statistics(
        spacing_um=(2.0, 0.5, 0.5), image_shape=(32, 128, 128), region_um=(16.0, 16.0, 16.0), cells_per_image=[20]
    )
    assert plan_scene(embryo, 0, 0).cells == pytest.approx(20, abs=1)
    assert plan_scene(embryo, 0, 0, (64, 256, 256)).cells == pytest.approx(20, abs=1)  # no larger than a real one
    assert plan_scene(embryo, 0, 0, (32, 32, 128)).cells == pytest.approx(10, abs=1)
    with pytest.raises(ValueError, match="they must be equal"):
        plan_scene(real, 0, 0, (64, 64), region=half)
