"""Simulated annotations: every cell in one piece, none on another, none lost, as large and as many as was asked for."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from scipy import ndimage
from skimage import measure

from cascade.annotation import Annotation
from cascade.data.measures import touching_ids
from cascade.draws import draw
from cascade.shapes.harmonics import HarmonicShapes
from cascade.simulators.bodies import ellipsoid_bodies, random_frames
from cascade.simulators.catalogue import ORGANISMS
from cascade.simulators.celegans import CElegansSettings, celegans
from cascade.simulators.detections import read_detections
from cascade.simulators.hela import HeLaSettings, hela
from cascade.simulators.nuclei import NucleiSettings, nuclei
from cascade.simulators.stemcells import StemCellSettings, stemcells
from cascade.simulators.tribolium import TriboliumSettings, tribolium
from cascade.simulators.zebrafish import ZebrafishSettings, harmonic_bodies, zebrafish


def in_pieces(annotation: Annotation) -> list[int]:
    """Ids that are not one piece by their faces alone."""
    boxes = ndimage.find_objects(annotation.labels.astype(np.int64))
    return [
        cell.label
        for cell in annotation.cells
        if ndimage.label(annotation.labels[boxes[cell.label - 1]] == cell.label)[1] != 1
    ]


def touching(labels: np.ndarray) -> set[int]:
    """Ids that share a face with another one."""
    found: set[int] = set()
    for axis in range(labels.ndim):
        rows = np.moveaxis(labels, axis, 0)
        met = (rows[1:] != rows[:-1]) & (rows[1:] > 0) & (rows[:-1] > 0)
        found |= set(rows[1:][met].tolist()) | set(rows[:-1][met].tolist())
    return found


def random_settings(name: str, rng: np.random.Generator) -> object:
    """Settings of an organism on a canvas that takes a moment only."""
    u = rng.uniform
    if name == "nuclei":
        if rng.random() < 0.6:
            size, spacing = tuple(rng.integers(100, 220, 2).tolist()), (u(0.4, 0.8), u(0.4, 0.8))
        else:
            size, spacing = (
                (*rng.integers(16, 30, 1).tolist(), *rng.integers(60, 100, 2).tolist()),
                (u(0.8, 2), 0.5, 0.5),
            )
        return NucleiSettings(
            canvas_size=size, spacing_um=spacing, num_cells=(1.0, u(5, 40)), radius_um=tuple(sorted(u(2.5, 5, 3))),
            elongation=(1.0, u(1, 2)), axial_elongation=(u(0.5, 1), u(1, 1.5)), deformation=(0.0, u(0, 0.25)),
            touching=(0.0, u(0, 1)), clustering=(-1.0, u(-1, 1)), inside=bool(rng.random() < 0.3),
        )  # fmt: skip
    if name == "celegans":
        return CElegansSettings(
            canvas_size=(20, 120, 160), spacing_um=(1.0, 0.3, 0.3), num_cells=(1.0, u(3, 40)), filling=u(0.1, 0.35),
            elongated=u(0, 1), deformation=u(0, 0.1),
        )  # fmt: skip
    if name == "tribolium":
        return TriboliumSettings(
            canvas_size=(9, 300, 200), embryo_radius_um=u(40, 80), num_cells=(1.0, u(20, 80)), depth_um=(-u(0, 2), 1.0),
        )  # fmt: skip
    if name == "zebrafish":
        return ZebrafishSettings(canvas_size=(40, 80, 80), num_cells=(1.0, u(3, 12)), gamma=u(3, 8))
    if name == "gowt1":
        return StemCellSettings(canvas_size=(260, 300), num_cells=(1.0, u(4, 12)), deformation=u(0, 0.2))
    return HeLaSettings(canvas_size=(200, 260), num_cells=(1.0, u(10, 50)), colonies=(1.0, 3.0), deformation=u(0, 0.25))


@pytest.mark.parametrize("name", [name for name in ORGANISMS if name in
                                  ("nuclei", "celegans", "tribolium", "zebrafish", "gowt1", "hela")])  # fmt: skip
@pytest.mark.parametrize("seed", range(6))
def test_every_cell_is_whole_and_none_is_lost(name, seed):
    settings = random_settings(name, np.random.default_rng([seed, len(name)]))
    annotation = ORGANISMS[name].simulate()(np.random.default_rng(seed), settings)
    assert in_pieces(annotation) == []
    assert annotation.labels.shape == settings.canvas_size
    asked = round(float(draw(np.random.default_rng(seed), settings.num_cells, 1)[0]))
    counts = annotation.counts
    assert len(annotation.cells) + counts.get("not_placed", 0) == asked + counts.get("on_both_borders", 0)
    fresh = Annotation.of_labels(annotation.labels, annotation.spacing_um)
    for cell, read in zip(annotation.cells, fresh.cells, strict=True):
        assert cell.size == pytest.approx(read.size)
        np.testing.assert_allclose(cell.centroid_um, read.centroid_um)
    again = ORGANISMS[name].simulate()(np.random.default_rng(seed), settings)
    assert again.labels.tobytes() == annotation.labels.tobytes()


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.parametrize("size", [(300, 300), (24, 96, 96)])
def test_as_many_touch_as_were_asked_for(share, size):
    """Those that touch share a face, those that do not have two pixels of background all around."""
    spacing = (0.65, 0.65) if len(size) == 2 else (1.0, 0.5, 0.5)
    settings = NucleiSettings(
        canvas_size=size, spacing_um=spacing, num_cells=(24.0,), radius_um=(3.0, 4.0), touching=(share,)
    )
    annotation = nuclei(np.random.default_rng(1), settings)
    assert not annotation.counts
    assert abs(len(touching(annotation.labels)) - share * 24) <= 1
    if share == 0:
        assert not len(touching_ids(annotation.labels))


def test_the_share_that_touches_varies_about_what_was_asked_for():
    settings = NucleiSettings(canvas_size=(300, 300), num_cells=(24.0,), radius_um=(3.0, 4.0), touching=(0.4,))
    found = [len(touching(nuclei(np.random.default_rng(seed), settings).labels)) / 24 for seed in range(12)]
    assert np.mean(found) == pytest.approx(0.4, abs=3 * np.sqrt(0.4 * 0.6 / 12 / 12))


def test_sizes_and_elongations_are_those_that_were_asked_for():
    """Area to a pixel, whatever touches and deforms; semi-axes as skimage measures them."""
    settings = NucleiSettings(
        canvas_size=(400, 400), spacing_um=(0.25, 0.25), num_cells=(40.0,), radius_um=(4.0,), elongation=(1.6,),
        deformation=(0.0,), touching=(0.4,), inside=True,
    )  # fmt: skip
    annotation = nuclei(np.random.default_rng(0), settings)
    assert {cell.size for cell in annotation.cells} == {np.rint(16 * np.pi / 0.0625) * 0.0625}
    alone = set(range(1, 41)) - touching(annotation.labels)
    found = [
        r.axis_major_length / r.axis_minor_length for r in measure.regionprops(annotation.labels) if r.label in alone
    ]
    np.testing.assert_allclose(found, 1.6, rtol=0.03)
    solidity = []
    for deformation in (0.0, 0.12, 0.2):
        one = nuclei(np.random.default_rng(0), replace(settings, deformation=(deformation,), touching=(0.0,)))
        solidity.append(np.mean([r.solidity for r in measure.regionprops(one.labels)]))
    assert solidity[0] > solidity[1] + 0.004 > solidity[2] + 0.02


def test_a_stack_is_as_tall_as_was_asked_for():
    settings = NucleiSettings(
        canvas_size=(40, 120, 120), spacing_um=(1.0, 0.5, 0.5), num_cells=(12.0,), radius_um=(5.0,),
        elongation=(1.0,), axial_elongation=(1.4,), deformation=(0.0,), inside=True,
    )  # fmt: skip
    annotation = nuclei(np.random.default_rng(0), settings)
    for box in ndimage.find_objects(annotation.labels):
        extent = [(part.stop - part.start) * s for part, s in zip(box, annotation.spacing_um, strict=True)]
        assert extent[0] / np.mean(extent[1:]) == pytest.approx(1.4, abs=0.15)
    assert annotation.cells[0].size == pytest.approx(4 / 3 * np.pi * 125, rel=2e-3)


def test_clustering_sets_how_near_the_next_one_is():
    def nearest(clustering: float) -> float:
        settings = NucleiSettings(canvas_size=(400, 400), num_cells=(40.0,), clustering=(clustering,))
        found = []
        for seed in range(3):
            places = np.array([cell.centroid_um for cell in nuclei(np.random.default_rng(seed), settings).cells])
            apart = np.linalg.norm(places[:, None] - places, axis=-1) + np.eye(len(places)) * 1e9
            found.append(apart.min(1).mean())
        return float(np.mean(found))

    far, usual, near = nearest(-1.0), nearest(0.0), nearest(1.0)
    assert near * 1.3 < usual < far / 1.2


def test_a_fitted_distribution_is_drawn():
    quantiles = np.sort(np.random.default_rng(0).lognormal(size=33))
    values = draw(np.random.default_rng(1), tuple(quantiles), 20_000)
    np.testing.assert_allclose(
        np.quantile(values, np.linspace(0.1, 0.9, 9)), np.quantile(quantiles, np.linspace(0.1, 0.9, 9)), rtol=0.05
    )


@pytest.mark.parametrize("ndim", [2, 3])
def test_bodies_are_ellipsoids(ndim):
    """Their voxels lie where (x / semi-axis)² sums to less than 1, to a voxel of the surface."""
    rng, spacing = np.random.default_rng(0), (0.4, 0.5, 0.25)[-ndim:]
    semi, frames = rng.uniform(3, 6, (4, ndim)), random_frames(rng, 4, ndim)
    np.testing.assert_allclose(
        frames @ np.swapaxes(frames, 1, 2), np.broadcast_to(np.eye(ndim), (4, ndim, ndim)), atol=1e-12
    )
    for body, axes, frame in zip(ellipsoid_bodies(rng, semi, frames, spacing), semi, frames, strict=True):
        points = (np.argwhere(np.ones(body.mask.shape)) - body.half) * spacing
        value = (((points @ frame.T) / axes) ** 2).sum(1).reshape(body.mask.shape)
        np.testing.assert_allclose(body.depth, value, rtol=1e-3, atol=1e-3)
        assert not body.mask[value > 1.08].any()
        assert body.mask[value < 0.92].all()


def test_c_elegans_fills_its_embryo_the_same_whatever_the_number():
    volumes = {}
    for count in (20.0, 100.0):
        annotation = celegans(np.random.default_rng(0), CElegansSettings(num_cells=(count,), elongated=0.0))
        assert annotation.labels.shape == (35, 512, 708)
        volumes[count] = sum(cell.size for cell in annotation.cells)
        centres = [
            tuple(np.rint(np.array(c.centroid_um) / annotation.spacing_um).astype(int)) for c in annotation.cells
        ]
        assert annotation.foreground is not None
        assert np.mean([annotation.foreground[centre] for centre in centres]) > 0.95
    assert volumes[20.0] == pytest.approx(volumes[100.0], rel=0.2)


def test_mitotic_cells_are_cylindrical():
    usual, mitotic = (
        celegans(
            np.random.default_rng(0), CElegansSettings(num_cells=(40.0,), elongated=share, mitotic_elongation=(2.0,))
        )
        for share in (0.0, 1.0)
    )
    sizes = [np.mean([cell.size for cell in annotation.cells]) for annotation in (usual, mitotic)]
    assert sizes[0] / sizes[1] == pytest.approx(4 / 1.05**2, rel=0.15)


def test_the_map_of_t_castaneum_is_true_at_the_equator_and_stretched_at_the_poles():
    """The section of a ball has the area π r² / sin θ on the map: the same in µm at the equator."""
    settings = TriboliumSettings(
        canvas_size=(13, 1400, 1000), num_cells=(500.0,), radius_um=(6.0,), embryo_radius_um=200.0
    )
    annotation = tribolium(np.random.default_rng(0), settings)
    plane, (_, dy, dx) = annotation.labels[6], annotation.spacing_um
    assert dy == pytest.approx(2 * np.pi * 200 / 1400)
    assert dx == pytest.approx(0.9 * np.pi * 200 / 1000)
    polar = 0.5 * np.pi * (1 + 0.9 * (2 * (np.arange(1000) + 0.5) / 1000 - 1))
    ratios, stretches = [], []
    for region in measure.regionprops(plane):
        _, x = region.centroid
        top, left, bottom, right = region.bbox
        if top == 0 or left == 0 or bottom == 1400 or right == 1000:
            continue
        theta = np.interp(x, np.arange(1000), polar)
        ratios.append(region.area * dy * dx / (np.pi * 36) * np.sin(theta))
        stretches.append((bottom - top) * dy / ((right - left) * dx) * np.sin(theta))
    assert len(ratios) > 300
    np.testing.assert_allclose(ratios, 1, atol=0.06)
    np.testing.assert_allclose(stretches, 1, atol=0.15)
    assert annotation.counts["on_both_borders"] == len(annotation.cells) - 500


def test_layers_of_t_castaneum_are_sections_of_balls():
    """At d from a ball's middle the section has the radius √(r² − d²)."""
    settings = TriboliumSettings(
        canvas_size=(13, 1400, 1000), num_cells=(200.0,), radius_um=(6.0,), embryo_radius_um=200.0
    )
    labels = tribolium(np.random.default_rng(0), settings).labels
    areas = np.count_nonzero(labels, (1, 2)) / np.count_nonzero(labels[6])
    expected = np.maximum(36 - (np.arange(13) - 6.0) ** 2, 0) / 36
    np.testing.assert_allclose(areas, expected, atol=0.03)


def test_nucleoli_lie_inside_their_nuclei():
    annotation = stemcells(np.random.default_rng(3), StemCellSettings(inside=True, num_cells=(20.0,)))
    spots = 0
    for cell in annotation.cells:
        for y, x, radius in cell.nucleoli or ():
            for angle in np.linspace(0, 2 * np.pi, 16):
                place = np.array([y + radius * np.sin(angle), x + radius * np.cos(angle)]) / annotation.spacing_um
                assert annotation.labels[tuple(np.rint(place).astype(int))] == cell.label
            spots += 1
    assert 8 < spots < 32


def test_hela_places_all_in_colonies_and_adds_some_where_they_are_full():
    annotation = hela(
        np.random.default_rng(0), HeLaSettings(canvas_size=(260, 400), num_cells=(90.0,), colonies=(1.0,))
    )
    assert len(annotation.cells) == 90
    assert annotation.counts["colonies_added"] >= 1
    assert annotation.foreground is not None
    for cell in annotation.cells:
        y, x = np.clip(np.rint(np.array(cell.centroid_um) / annotation.spacing_um).astype(int), 0, (259, 399))
        assert annotation.foreground[max(y - 9, 0) : y + 10, max(x - 9, 0) : x + 10].any()


def test_harmonic_volumes_are_the_integral_of_their_radius():
    """log r = c Y_0^0 is a ball of radius e^{c / √(4π)}; of any shape, V = ∫ r³ / 3 over the directions."""
    rng = np.random.default_rng(0)
    coefficients = torch.zeros(3, 81)
    coefficients[0, 0] = np.sqrt(4 * np.pi) * np.log(1.2)
    coefficients[1:, 4:25] = torch.from_numpy(rng.normal(0, 0.25, (2, 21))).float()
    shapes = HarmonicShapes(torch.eye(3).expand(3, 3, 3), coefficients)
    bodies = harmonic_bodies(shapes, np.full(3, 9.0), (1.0, 0.5, 0.5))
    heights, weights = np.polynomial.legendre.leggauss(40)
    phi = np.arange(80) * 2 * np.pi / 80
    z, angle = (g.ravel() for g in np.meshgrid(heights, phi, indexing="ij"))
    flat = np.sqrt(1 - z**2)
    directions = torch.from_numpy(np.stack([z, flat * np.sin(angle), flat * np.cos(angle)], 1)).float()
    cubes = shapes.radius(directions).numpy().reshape(3, 40, 80) ** 3
    volumes = 9.0**3 * (cubes.mean(2) * weights).sum(1) * 2 * np.pi / 3
    assert volumes[0] == pytest.approx(4 / 3 * np.pi * (1.2 * 9) ** 3, rel=1e-5)
    np.testing.assert_allclose([body.voxels * 0.25 for body in bodies], volumes, rtol=0.01)


def test_zebrafish_nuclei_lie_at_their_detections(tmp_path):
    rng = np.random.default_rng(0)
    places = np.stack(np.meshgrid([10, 30], [12, 36, 60], [12, 36, 60], indexing="ij"), -1).reshape(-1, 3)
    places = places + rng.integers(-2, 3, places.shape)
    table = tmp_path / "points.csv"
    table.write_text("id,z,y,x\n" + "".join(f"{n},{z},{y},{x}\n" for n, (z, y, x) in enumerate(places)))
    settings = ZebrafishSettings(canvas_size=(40, 72, 72), detections=table, radius_um=(7.0,), gamma=8.0)
    annotation = zebrafish(np.random.default_rng(1), settings)
    assert len(annotation.cells) == len(places)
    for cell, place in zip(annotation.cells, places, strict=True):
        assert annotation.labels[tuple(place)] == cell.label
        np.testing.assert_allclose(cell.centroid_um, place, atol=1.5)
    assert in_pieces(annotation) == []
    image = np.zeros((40, 72, 72), np.uint8)
    image[tuple(places.T)] = 255
    points_path = tmp_path / "points.tif"
    tifffile.imwrite(points_path, image)
    points = read_detections(points_path, (2.0, 1.0, 1.0))
    np.testing.assert_allclose(sorted(map(tuple, points)), sorted(map(tuple, places * [2.0, 1.0, 1.0])))


def test_crowded_detections_share_the_voxels():
    rng = np.random.default_rng(2)
    places = rng.uniform(5, 55, (40, 3)) * (0.5, 1, 1)
    annotation = zebrafish(rng, ZebrafishSettings(canvas_size=(32, 60, 60)), detections_um=places)
    assert len(annotation.cells) == 40
    assert in_pieces(annotation) == []


BAD = [
    (NucleiSettings, {"radius_um": (0.0,)}, "radius_um must be above 0, got 0"),
    (NucleiSettings, {"radius_um": (-1.0, 4.0)}, "radius_um must be above 0, got -1 4"),
    (NucleiSettings, {"radius_um": (float("nan"),)}, "radius_um must be numbers that do not fall"),
    (NucleiSettings, {"radius_um": ()}, "radius_um must be numbers that do not fall: .* got none"),
    (NucleiSettings, {"num_cells": (9.0, 3.0)}, "num_cells must be numbers that do not fall"),
    (NucleiSettings, {"canvas_size": (64,)}, "canvas_size must be y x or z y x, whole numbers from 1, got 64"),
    (
        NucleiSettings,
        {"canvas_size": (64, 64, 64)},
        "spacing_um must be 3 lengths above 0 in µm for a canvas of 64 64 64",
    ),
    (NucleiSettings, {"touching": (1.5,)}, "touching must be from 0 to 1, got 1.5"),
    (NucleiSettings, {"elongation": (0.5,)}, "elongation must be from 1, got 0.5"),
    (StemCellSettings, {"canvas_size": (13, 64, 64)}, "canvas_size must be y x, whole numbers from 1, got 13 64 64"),
    (CElegansSettings, {"canvas_size": (64, 64)}, "canvas_size must be z y x, whole numbers from 1, got 64 64"),
    (TriboliumSettings, {"radius_um": (400.0,)}, "embryo_radius_um 230 is too small"),
    (HeLaSettings, {"colony_radius_um": (3.0,)}, "colony_radius_um 3 is smaller than a cell of `radius_um` 12.9"),
    (ZebrafishSettings, {"gamma": float("nan")}, "gamma must be between 1 and 100"),
]


@pytest.mark.parametrize(("kind", "given", "message"), BAD)
def test_settings_that_cannot_be_are_refused_in_one_line(kind, given, message):
    with pytest.raises(ValueError, match=message) as refusal:
        kind(**given)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("make", "settings", "message"),
    [
        (nuclei, NucleiSettings(canvas_size=(64, 64), num_cells=(90.0,)), r"90 cells, and \d+ .* on a canvas of 64×64"),
        (nuclei, NucleiSettings(radius_um=(0.3,)), "a cell of radius 0.3 µm is too small for voxels of 0.65 × 0.65 µm"),
        (stemcells, StemCellSettings(canvas_size=(128, 128)), "30 cells, and . of them fit on a canvas of 128×128"),
        (celegans, CElegansSettings(num_cells=(1.0,), filling=1.0), "embryo of .* µm is smaller than one of its 1"),
        (tribolium, TriboliumSettings(embryo_radius_um=50.0, num_cells=(300.0,)), r"300 nuclei, and \d+ .* fit"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(make, settings, message):
    with pytest.raises(ValueError, match=message) as refusal:
        make(np.random.default_rng(0), settings)
    assert "\n" not in str(refusal.value)


def test_of_a_range_those_that_do_not_fit_are_counted():
    settings = NucleiSettings(canvas_size=(64, 64), num_cells=(2.0, 90.0))
    found = nuclei(np.random.default_rng(3), settings)
    asked = round(float(draw(np.random.default_rng(3), settings.num_cells, 1)[0]))
    assert len(found.cells) + found.counts.get("not_placed", 0) == asked


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("z,y,x\n", "holds no detections"),
        ("a,b,c\n1,2,3\n", "has columns a, b, c; name those of the points z, y, x"),
        ("z,y,x\n1,2,three\n", "line 2 holds no finite numbers in z, y, x: 1, 2, three"),
        ("z,y,x\n1,2,3\n\n1,2,nan\n", "line 4 holds no finite numbers"),
        ("z,y,x\n1,2,3\n1,2\n", "line 3 holds no finite numbers"),
        ("z,y,x\n1,2,3\n1,2,3\n", "1 detections are there twice, the first at voxel 1 2 3"),
        (
            "z,y,x\n1,2,3\n1,2,900\n",
            "1 of 2 detections lie outside the canvas of 40×72×72 voxels, the first at voxel 1 2 900",
        ),
    ],
)
def test_detections_that_cannot_be_are_named(tmp_path, text, message):
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        zebrafish(np.random.default_rng(0), ZebrafishSettings(canvas_size=(40, 72, 72), detections=path))


@pytest.mark.parametrize("text", ["z;y;x\n1,5;2;3\n", "z\ty\tx\n1.5\t2\t3\n", "\ufeffz,y,x\n1.5,2,3\n"])
def test_detections_are_read_as_spreadsheets_write_them(tmp_path, text):
    (tmp_path / "points.csv").write_text(text, encoding="utf-8")
    assert read_detections(tmp_path / "points.csv", (2.0, 1.0, 1.0)).tolist() == [[3.0, 2.0, 3.0]]
