import numpy as np
import pytest
import tifffile
from scipy import ndimage

from cascade.geometry.grid import Volume
from cascade.shapes.ellipsoid import ellipsoid
from cascade.shapes.membranes import membranes
from cascade.shapes.statistical import ShapeModel, fit_shape_model
from cascade.simulators.meristem import MeristemSettings, meristem
from cascade.simulators.organisms import harmonic_dome, rasterised, sampled_organism
from cascade.simulators.tissue import TissueSettings, tissue


def uncut(annotation):
    """Ids and boxes of the cells that the border does not cut."""
    for n, box in enumerate(ndimage.find_objects(annotation.labels), 1):
        sides = zip(box, annotation.labels.shape, strict=True)
        if all(side.start > 0 and side.stop < size for side, size in sides):
            yield n, box


def elongations(annotation):
    """Square root of the ratio of the largest to the smallest second moment of uncut cells."""
    found = []
    for n, box in uncut(annotation):
        places = np.argwhere(annotation.labels[box] == n) * np.array(annotation.spacing_um)
        moments = np.linalg.eigvalsh(np.cov(places.T))
        found.append(np.sqrt(moments[-1] / moments[0]))
    return np.array(found)


def diameters(annotation):
    """Of the discs or balls of uncut cells."""
    size = np.array([annotation.cells[n - 1].size for n, _ in uncut(annotation)])
    return np.sqrt(4 / np.pi * size) if annotation.ndim == 2 else np.cbrt(6 / np.pi * size)


@pytest.mark.parametrize("seed", range(24))
def test_any_tissue_is_sound(seed):
    """Random settings and ragged foregrounds: each label one piece, by faces; none outside, none left out unseen."""
    rng = np.random.default_rng(seed)
    n = 2 + seed % 2
    shape = tuple(int(s) for s in (rng.integers(30, 160, 2) if n == 2 else rng.integers(8, 50, 3)))
    spacing = tuple(rng.uniform(0.3, 1.5, n))
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), rng.uniform(1, 6))
    foreground = smooth > np.quantile(smooth, rng.choice([0.0, 0.3, 0.6]))
    least = rng.uniform(3, 6) * np.prod(spacing) ** (1 / n)
    settings = TissueSettings(
        canvas_size=shape,
        spacing_um=spacing,
        diameter_um=tuple(np.sort(rng.uniform(least, 2 * least, int(rng.integers(1, 5))))),
        elongation=(1.0, float(rng.uniform(1, 3))),
        layer_um=None if rng.random() < 0.5 else float(least * rng.uniform(0.3, 3)),
        regularity=int(rng.integers(0, 5)),
    )
    made = tissue(rng, settings, foreground=foreground)
    assert made.counts["voxels_of_no_cell"] == np.count_nonzero(foreground & (made.labels == 0))
    assert made.counts["voxels_of_no_cell"] < 0.05 * foreground.sum() + 40
    assert not made.labels[~foreground].any()
    assert [cell.label for cell in made.cells] == list(range(1, len(made.cells) + 1))
    for label, box in enumerate(ndimage.find_objects(made.labels), 1):
        assert ndimage.label(made.labels[box] == label)[1] == 1
    assert made.labels.dtype == np.uint16
    assert np.array_equal(made.foreground, foreground)


def test_the_same_seed_makes_the_same_tissue():
    settings = MeristemSettings(canvas_size=(40, 50, 50), spacing_um=(1.0, 1.0, 1.0), diameter_um=(8.0, 12.0))
    one, again, other = (meristem(np.random.default_rng(seed), settings) for seed in (3, 3, 4))
    assert np.array_equal(one.labels, again.labels)
    assert not np.array_equal(one.foreground, other.foreground)


@pytest.mark.parametrize("canvas", [(300, 300), (60, 60, 60)])
def test_cells_have_the_sizes_asked_for(canvas):
    n = len(canvas)
    base = TissueSettings(canvas_size=canvas, spacing_um=(1.0,) * n, diameter_um=(14.0,), elongation=(1.0,))
    alike = diameters(tissue(np.random.default_rng(0), base))
    varied = TissueSettings(canvas_size=canvas, spacing_um=(1.0,) * n, diameter_um=(9.0, 19.0), elongation=(1.0,))
    mixed = diameters(tissue(np.random.default_rng(0), varied))
    assert alike.mean() == pytest.approx(14, rel=0.05)
    assert alike.std() < 0.15 * 14
    assert mixed.std() > 1.5 * alike.std()
    anywhere = TissueSettings(canvas_size=canvas, spacing_um=(1.0,) * n, diameter_um=(14.0,), regularity=0)
    assert diameters(tissue(np.random.default_rng(0), anywhere)).std() > 1.5 * alike.std()


@pytest.mark.parametrize(("canvas", "asked"), [((200, 200), (1.0, 1.5, 2.0)), ((50, 50, 50), (1.0, 2.0, 2.8))])
def test_cells_are_elongated_as_asked(canvas, asked):
    spacing, found = (1.0,) * len(canvas), []
    for one in asked:
        settings = TissueSettings(canvas_size=canvas, spacing_um=spacing, diameter_um=(12.5,), elongation=(one,))
        found.append(np.median(elongations(tissue(np.random.default_rng(1), settings))))
    assert found[0] < 1.5
    np.testing.assert_allclose(found[1:], asked[1:], rtol=0.15)


def test_cells_lie_in_layers():
    settings = MeristemSettings(
        canvas_size=(70, 120, 120), spacing_um=(1.0,) * 3, diameter_um=(14.0,), elongation=(1.0,), roughness=0.0
    )
    made = meristem(np.random.default_rng(2), settings)
    depth = ndimage.distance_transform_edt(made.foreground)  # the border of the canvas is no surface
    centroids = np.array([cell.centroid_um for cell in made.cells]).round().astype(int)
    layer = depth[tuple(centroids.T)] / (14 * (np.pi / 6) ** (1 / 3))
    counts, _ = np.histogram(layer, np.arange(0, 2.2, 0.25))
    assert counts[1] + counts[2] > 4 * (counts[0] + counts[3])  # a first layer around half its thickness


@pytest.mark.parametrize("layer_um", [1e-6, 0.7, 1e6])
def test_any_thickness_of_layers_makes_as_many_cells(layer_um):
    foreground = np.pad(np.ones((50, 50), bool), 10)
    settings = TissueSettings(
        canvas_size=foreground.shape, spacing_um=(1.0, 1.0), diameter_um=(8.0,), elongation=(1.0,), layer_um=layer_um
    )
    made = tissue(np.random.default_rng(0), settings, foreground=foreground)
    assert len(made.cells) == pytest.approx(50 * 50 / (np.pi * 16), rel=0.05)


def test_a_part_without_a_cell_becomes_one():
    foreground = np.zeros((60, 100), bool)
    foreground[5:55, 5:60] = True
    foreground[20:28, 80:88] = True  # as large as a cell
    foreground[40:42, 80:82] = True  # a crumb
    settings = TissueSettings(
        canvas_size=(60, 100), spacing_um=(1.0, 1.0), diameter_um=(8.5, 10.0), elongation=(1.0,), regularity=0
    )
    for seed in range(6):
        made = tissue(np.random.default_rng(seed), settings, foreground=foreground)
        assert (made.labels[20:28, 80:88] > 0).all()
        crumb = made.labels[40:42, 80:82]
        assert made.counts["voxels_of_no_cell"] == np.count_nonzero(crumb == 0)


def test_a_dome_is_half_an_ellipsoid():
    made = harmonic_dome(np.random.default_rng(0), (60, 81, 101), (1.0, 1.0, 1.0), dome=(0.8, 0.4, 0.45), roughness=0.0)
    z, y, x = np.indices(made.shape)
    exact = ((z - 59) / (0.8 * 59)) ** 2 + ((y - 40) / 32) ** 2 + ((x - 50) / 45) ** 2 < 1
    assert (made & exact).sum() / (made | exact).sum() > 0.98
    rough = harmonic_dome(np.random.default_rng(0), (60, 81, 101), (1.0,) * 3, dome=(0.8, 0.4, 0.45), roughness=0.1)
    assert 0.01 < (made ^ rough).mean() < 0.2
    assert ndimage.label(rough)[1] == 1


def test_large_solids_are_interpolated_and_small_ones_exact():
    ball = ellipsoid(np.array([20.0, 30.0, 35.0]))
    middle = np.array([30.0, 40.0, 50.0])
    for shape, spacing, least in (((61, 81, 101), (1.0, 1.0, 1.0), 0.995), ((21, 41, 41), (3.0, 2.0, 2.5), 1.0)):
        points = np.indices(shape).reshape(3, -1).T * np.array(spacing)
        exact = (ball(points - middle) < 0).reshape(shape)
        made = rasterised(lambda p: ball(p - middle), shape, spacing)
        assert (made & exact).sum() / (made | exact).sum() >= least


def test_organisms_of_a_shape_model(tmp_path):
    masks = []
    for scale in (0.9, 1.0, 1.1):
        z, y, x = np.indices((30, 40, 44)) - np.array([15, 20, 22]).reshape(3, 1, 1, 1)
        masks.append(Volume((z / 10) ** 2 + (y / 13) ** 2 + (x / 14) ** 2 < scale**2, (1.0, 1.0, 1.0)))
    model = fit_shape_model(masks, align=False)
    drawn = sampled_organism(np.random.default_rng(0), model, (40, 50, 60), (1.0, 1.0, 1.0))
    assert 0.65 < drawn.sum() / masks[1].array.sum() < 1.5
    np.testing.assert_allclose(ndimage.center_of_mass(drawn), (19.5, 24.5, 29.5), atol=1.5)
    model.save(tmp_path / "organisms.safetensors")
    settings = MeristemSettings(
        canvas_size=(40, 50, 60),
        spacing_um=(1.0, 1.0, 1.0),
        diameter_um=(7.0,),
        shape_model=tmp_path / "organisms.safetensors",
    )
    made = meristem(np.random.default_rng(0), settings)
    assert np.array_equal(made.foreground, drawn)
    assert len(made.cells) == pytest.approx(drawn.sum() / (np.pi / 6 * 7**3), rel=0.15)
    assert isinstance(ShapeModel.load(settings.shape_model), ShapeModel)


def test_membranes_lie_between_cells_and_around_the_organism():
    settings = MeristemSettings(canvas_size=(30, 50, 50), spacing_um=(1.0,) * 3, diameter_um=(12.0,))
    made = meristem(np.random.default_rng(0), settings)
    wall = membranes(made.labels, made.spacing_um, 2.0)
    surface = made.foreground & ~ndimage.binary_erosion(made.foreground, border_value=1)
    assert wall[surface].all()
    cells, count = ndimage.label(made.foreground & ~wall)
    for piece in range(1, count + 1):  # no way from one cell to another but through a membrane
        assert len(np.unique(made.labels[cells == piece])) == 1


def test_a_mask_from_a_file(tmp_path):
    mask = np.zeros((20, 40, 40), np.uint8)
    mask[4:16, 5:35, 5:35] = 255
    tifffile.imwrite(tmp_path / "organism.tif", mask)
    given = {"canvas_size": mask.shape, "spacing_um": (1.0,) * 3, "foreground": tmp_path / "organism.tif"}
    for made in (
        tissue(np.random.default_rng(0), TissueSettings(**given)),
        meristem(np.random.default_rng(0), MeristemSettings(**given)),
    ):
        assert np.array_equal(made.foreground, mask > 0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"canvas_size": (0, 5, 5)}, "canvas_size must be"),
        ({"canvas_size": (64, 64)}, "spacing_um must be 2 lengths"),
        ({"spacing_um": (0.5, 0.0, 0.3)}, "above 0"),
        ({"diameter_um": (0.0,)}, "diameter_um must be above 0"),
        ({"diameter_um": (-3.0, 4.0)}, "diameter_um must be above 0"),
        ({"diameter_um": (float("nan"),)}, "diameter_um must be numbers"),
        ({"diameter_um": ()}, "diameter_um must be numbers"),
        ({"elongation": (0.5,)}, "elongation must be from 1 to 3"),
        ({"elongation": (1.0, 9.0)}, "elongation must be from 1 to 3"),
        ({"layer_um": 0.0}, "layer_um must be a number above 0"),
        ({"regularity": -1}, "regularity must be a whole number from 0"),
    ],
)
def test_refuses_wrong_settings(change, said):
    with pytest.raises(ValueError, match=said):
        TissueSettings(**change)


def test_refuses_organisms_that_are_none(tmp_path):
    rng = np.random.default_rng(0)
    small = TissueSettings(canvas_size=(20, 20), spacing_um=(1.0, 1.0), diameter_um=(40.0,))
    with pytest.raises(ValueError, match="smaller than a cell"):
        tissue(rng, small)
    fine = TissueSettings(canvas_size=(60, 60), spacing_um=(1.0, 1.0), diameter_um=(6.0,))
    with pytest.raises(ValueError, match="pieces that are all smaller"):
        tissue(rng, fine, foreground=np.eye(60, dtype=bool))
    with pytest.raises(ValueError, match="less than 8 voxels"):
        tissue(rng, TissueSettings(canvas_size=(20, 20), spacing_um=(1.0, 1.0), diameter_um=(1.0,)))
    with pytest.raises(ValueError, match="set `canvas_size` to 9 9"):
        tissue(rng, small, foreground=np.ones((9, 9), bool))
    with pytest.raises(ValueError, match="empty"):
        tissue(rng, small, foreground=np.zeros((20, 20), bool))
    with pytest.raises(ValueError, match="no such mask"):
        tissue(rng, TissueSettings(foreground=tmp_path / "none.tif"))
    with pytest.raises(ValueError, match="z y x"):
        MeristemSettings(canvas_size=(64, 64), spacing_um=(1.0, 1.0))
    with pytest.raises(ValueError, match="give one of them"):
        MeristemSettings(foreground=tmp_path / "a.tif", shape_model=tmp_path / "b.safetensors")
    with pytest.raises(ValueError, match="holds no shape model"):
        meristem(rng, MeristemSettings(shape_model=tmp_path / "none.safetensors"))
    with pytest.raises(ValueError, match="dome must be three shares"):
        MeristemSettings(dome=(0.8, 0.4, 1.4))
    with pytest.raises(ValueError, match="roughness must be between 0 and 1"):
        MeristemSettings(roughness=-0.1)
