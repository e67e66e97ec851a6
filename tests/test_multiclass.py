"""Tissue as three classes, the network that tells them, and its scores."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import tifffile
import torch
from scipy import ndimage, spatial

from cascade.commands.cli import main
from cascade.evaluation import experiment, segmenters
from cascade.evaluation.experiment import evaluate, run_trainings
from cascade.evaluation.labelled import LabelledImage
from cascade.evaluation.multiclass import (
    MultiClassSegmenter,
    MultiClassSettings,
    class_loss,
    multiclass,
    relative_light,
)
from cascade.evaluation.segmentation import score
from cascade.evaluation.settings import EvaluateSettings
from cascade.evaluation.tissue import CELL_VOXELS, cell_centres, classes_of, instances, seeds_of, typical_voxel
from cascade.evaluation.tissue_scores import matched, near, partition_scores, tissue_scores

TINY = MultiClassSettings(width=(6, 12), steps=2, patch=16, tile=32, overlap=8)


def tissue(seed, shape=(96, 96), spacing_um=(1.0, 1.0), across_um=24.0) -> LabelledImage:
    """Cells that touch everywhere, bright membranes between them, and background around the tissue."""
    rng = np.random.default_rng(seed)
    places = np.stack(np.indices(shape), -1) * spacing_um
    extent = np.array(shape) * spacing_um
    sides = [(np.arange(max(round(n / across_um), 1)) + 0.5) * across_um for n in extent]
    grid = np.stack(np.meshgrid(*sides, indexing="ij"), -1)
    points = grid.reshape(-1, len(shape)) + rng.uniform(-0.15, 0.15, (grid[..., 0].size, len(shape))) * across_um
    labels = spatial.cKDTree(points).query(places)[1] + 1
    labels[..., :6] = 0
    wall = classes_of(labels, spacing_um, across_um / CELL_VOXELS)[1]
    light = 100 + 60 * (labels > 0) + 600 * ndimage.gaussian_filter(wall.astype(float), 0.7)
    return LabelledImage(rng.poisson(light).astype(np.uint16), labels.astype(np.uint16), spacing_um)


@dataclass
class Oracle:
    """Sees the truth: of labels moved by so many pixels along x."""

    moved: int = 0

    def voxel_um(self, one):
        return typical_voxel([one])

    def probabilities(self, one):
        labels = one.labels[..., np.maximum(np.arange(one.labels.shape[-1]) - self.moved, 0)]
        return classes_of(labels, one.spacing_um, self.voxel_um(one)).astype(np.float32)


def test_classes_have_the_sizes_they_are_said_to():
    """Two slabs of 20 µm at a z step twice as large as the pixels; lengths in voxels of 1.5 µm."""
    labels = np.zeros((20, 80, 80), np.uint16)
    labels[:, 20:40], labels[:, 40:60] = 3, 8
    background, wall, blob = classes_of(labels, (2.0, 1.0, 1.0), 1.5)
    np.testing.assert_array_equal(background, labels == 0)
    borders = [n for n in range(80) if any(abs(n + 0.5 - edge) <= 1.5 for edge in (20, 40, 60))]
    assert wall.any((0, 2)).nonzero()[0].tolist() == borders  # 3 µm thick, half on either side
    assert wall[:, borders].all()
    ids, centres = cell_centres(labels, (2.0, 1.0, 1.0), 1.5)
    assert ids.tolist() == [3, 8]
    np.testing.assert_allclose(centres, [[20, 30, 40], [20, 50, 40]], atol=1.01)  # the voxel next to the middle
    assert 2 * (blob & (labels == 3)).sum() == pytest.approx(4 / 3 * np.pi * 6**3, rel=0.07)  # µm³, radius 4 × 1.5
    assert not (blob & background).any()


def test_splinters_have_no_centroid_and_centroids_lie_inside_their_cell():
    labels = np.zeros((60, 60), np.uint16)
    labels[5:55, 5:15] = labels[5:15, 5:55] = labels[45:55, 5:55] = 7  # its centre of mass is not in it
    labels[30, 50:53] = 9
    ids, centres = cell_centres(labels, (1.0, 1.0), 1.0)
    assert ids.tolist() == [7]
    assert labels[tuple((centres[0] - 0.5).astype(int))] == 7
    assert set(np.unique(labels[classes_of(labels, (1.0, 1.0), 1.0)[2]])) == {7}


def test_a_typical_cell_is_measured_in_micrometres_and_not_by_splinters():
    one = tissue(0, (24, 48, 48), (2.0, 1.0, 1.0), 16.0)
    volume = 16.0**3
    assert CELL_VOXELS * typical_voxel([one]) == pytest.approx(2 * (0.75 * volume / np.pi) ** (1 / 3), rel=0.1)
    labels = one.labels.copy()
    labels[::3, ::3, ::3] = 1000 + np.arange(labels[::3, ::3, ::3].size).reshape(labels[::3, ::3, ::3].shape)
    scattered = LabelledImage(one.image, labels, one.spacing_um)
    assert typical_voxel([scattered]) == pytest.approx(typical_voxel([one]), rel=0.1)


@pytest.mark.parametrize(
    ("shape", "spacing"), [((96, 96), (1.0, 1.0)), ((24, 64, 64), (2.0, 1.0, 1.0))], ids=["planes", "stacks"]
)
def test_cells_grow_back_from_their_classes(shape, spacing):
    one = tissue(1, shape, spacing)
    cells = instances(Oracle().probabilities(one), spacing, typical_voxel([one]))
    found = score([one.labels], [cells])
    assert found.seg > 0.9
    assert found.ap[0.5] == 1
    np.testing.assert_array_equal(cells == 0, one.labels == 0)
    seeds, middles = seeds_of(Oracle().probabilities(one), spacing, typical_voxel([one]))
    assert len(middles) == seeds.max() == len(np.unique(one.labels)) - 1


def test_a_cell_is_found_without_its_centroid():
    """And parts of the plane that no cell covers are none."""
    one = tissue(1)
    seen = Oracle().probabilities(one)
    seen[2] = 0
    cells = instances(seen, one.spacing_um, typical_voxel([one]))
    assert score([one.labels], [cells]).ap[0.5] == 1
    np.testing.assert_array_equal(cells == 0, one.labels == 0)


def test_a_dent_in_a_membrane_parts_no_cell_and_a_membrane_half_seen_does():
    """One cell of 40 pixels, and two, between which the membrane's probability rises by so much."""
    found = []
    for height in (0.01, 0.5):
        seen = np.zeros((3, 40, 80), np.float32)
        seen[1, :, 38:42] = height
        found.append(instances(seen, (1.0, 1.0), 1.0).max())
    assert found == [1, 2]


def test_dim_membranes_look_like_bright_ones_whatever_the_camera():
    stripes = 1.0 + 3.0 * (np.arange(256) % 32 < 4) * np.ones((256, 1))
    shade = np.repeat(np.linspace(1, 8, 256)[:, None], 256, 1)
    even, shaded = (relative_light(image, (1.0, 1.0), 1.0) for image in (stripes, stripes * shade))
    walls = even > even.mean()
    bright, dim = shaded[200:240][walls[200:240]].mean(), shaded[20:60][walls[20:60]].mean()
    assert dim == pytest.approx(bright, rel=0.15)
    np.testing.assert_allclose(relative_light(50 + 7 * stripes, (1.0, 1.0), 1.0), even, rtol=1e-4, atol=1e-4)


def test_scores_are_perfect_for_the_truth_and_fall_beyond_the_tolerance():
    test = [tissue(n, across_um=32.0) for n in range(2)]  # a pixel is one of the voxels, but for discs and squares
    labels = [one.labels for one in test]
    perfect = tissue_scores(Oracle(), test, labels)
    errors = ("adapted_rand_error", "vi_split", "vi_merged")
    assert perfect == pytest.approx({name: float(name not in errors) for name in perfect}, abs=1e-9)
    assert set(perfect) > {"background_iou", "membrane_dice", "centroid_precision", "centroid_recall", *errors}
    one_off, far_off = (tissue_scores(Oracle(moved), test, labels) for moved in (1, 8))
    assert one_off["membrane_iou"] == pytest.approx(1, abs=0.03)  # but for what leaves the image at its end
    assert one_off["centroid_f1"] == 1
    assert far_off["membrane_iou"] < 0.5
    assert far_off["centroid_f1"] < 0.5  # of cells at the image's end half as far
    assert far_off["membrane_dice"] == pytest.approx(2 * far_off["membrane_iou"] / (1 + far_off["membrane_iou"]))


def test_tolerance_is_a_length():
    truth, found = np.zeros((2, 5, 5, 5), bool)
    truth[2, 2, 2] = found[3, 2, 2] = True
    assert near(truth, found, (2.0, 1.0, 1.0), 1.0) == (0, 1, 1)
    assert near(truth, found, (2.0, 1.0, 1.0), 2.0) == (1, 0, 0)
    assert near(truth, np.zeros_like(truth), (1.0, 1.0, 1.0), 9.0) == (0, 1, 0)


def test_a_point_has_one_partner():
    """The nearest first would leave the second true point alone."""
    truth, found = np.array([[0.0, 0.0], [0.0, 3.0]]), np.array([[0.0, 1.4], [0.0, -2.0]])
    assert matched(truth, found, 2.0) == (2, 0, 0)
    assert matched(truth, found[:1], 2.0) == (1, 1, 0)
    assert matched(truth, found[:0], 2.0) == (0, 2, 0)


def test_merged_and_split_cells_are_told_apart():
    truth = np.repeat(np.arange(1, 5), 64)[None]
    merged, split = partition_scores([truth], [truth // 3 + 1]), partition_scores([truth], [np.arange(256)[None] // 16])
    assert merged["vi_split"] == split["vi_merged"] == 0
    assert merged["vi_merged"] == pytest.approx(1)  # every cell is one of two
    assert split["vi_split"] == pytest.approx(2)  # every cell is four
    background = np.concatenate([truth, np.zeros_like(truth)])
    assert partition_scores([background], [np.concatenate([truth, truth])])["adapted_rand_error"] == 0
    with pytest.raises(ValueError, match="nothing to measure"):
        partition_scores([truth * 0], [truth])


def test_a_rare_class_counts_as_much_as_a_frequent_one():
    classes = torch.zeros(1, 3, 8, 8)
    classes[:, 0], classes[:, 1, 0, 0] = 1, 1
    sure = 40 * (2 * classes - 1)
    assert class_loss(sure, classes) == pytest.approx(0, abs=1e-6)
    for rare in range(2):
        wrong = sure.clone()
        wrong[:, rare] = -40
        assert class_loss(wrong, classes) - 40 * classes[:, rare].mean() / 3 == pytest.approx(0.5, abs=1e-3)


def test_tissue_is_learnt_by_seed_whatever_the_voxels():
    """From images of coarse pixels, found in one of finer ones."""
    train, test = [tissue(n) for n in range(3)], tissue(9)
    settings = MultiClassSettings(width=(8, 16, 32), steps=120, batch_size=4, patch=64, tile=64, overlap=32)
    segment, _ = multiclass(train, settings, seed=0)
    finer = LabelledImage(*(a.repeat(2, 0).repeat(2, 1) for a in (test.image, test.labels)), (0.5, 0.5))
    for one in (test, finer):
        cells = segment(one)
        assert cells.shape == one.image.shape
        assert score([one.labels], [cells]).f1 > 0.7
        assert tissue_scores(segment, [one], [cells])["membrane_dice"] > 0.8
    few = MultiClassSettings(width=(6, 12), steps=2, patch=16)
    weights = [multiclass(train, few, seed)[1].state_dict()["last.weight"] for seed in (0, 0, 1)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_stacks_smaller_than_a_patch_are_learnt_and_segmented():
    one = tissue(0, (5, 40, 40), (2.0, 1.0, 1.0), 20.0)
    segment, _ = multiclass([one], TINY, seed=0)
    probabilities = segment.probabilities(one)
    assert probabilities.shape == (3, 5, 40, 40)
    assert 0 <= probabilities.min() <= probabilities.max() <= 1
    assert segment(one).shape == one.labels.shape


def test_cells_of_another_size_are_found_if_it_is_given():
    net = torch.nn.Module()
    one = tissue(0)
    assert MultiClassSegmenter(net, TINY, 0.75).voxel_um(one) == 0.75
    assert MultiClassSegmenter(net, TINY, 0.75, diameter_px=64.0).voxel_um(one) == 2.0


def test_what_cannot_be_learnt_is_said():
    plane, stack = tissue(0), tissue(0, (6, 32, 32), (1.0, 1.0, 1.0), 12.0)
    filled = LabelledImage(plane.image, np.ones_like(plane.labels), (1.0, 1.0))
    single = LabelledImage(plane.image, np.where(plane.labels == 3, 3, 0), (1.0, 1.0))
    for data, message in (
        ([plane, stack], "from planes alone, or from stacks alone: give sets of one kind"),
        ([single], "the labels show 1 cells in all: give labels of two or more"),
        ([filled, filled], "the labels have no membrane: give images in which cells touch others, or background"),
    ):
        with pytest.raises(ValueError, match=message):
            multiclass(data, TINY, 0)
    segment, _ = multiclass([stack], TINY, 0)
    with pytest.raises(ValueError, match="a 2D image for a segmenter that was trained on 3D ones"):
        segment(plane)


def test_every_training_is_tested_on_both_kinds_and_done_once(tmp_path):
    test, made, calls = [tissue(1)], [tissue(2), tissue(3)], []

    def train(data, seed):
        calls.append(seed)
        return lambda one: one.labels * (one.labels % (2 + len(data)) > 0)

    def measure(segment, images, predictions):
        return {"images": float(len(images)), "found": float(np.mean([p.any() for p in predictions]))}

    conditions = {"real": [tissue(4)], "synthetic": [tissue(5), tissue(6)]}
    usual = dict(others={"synthetic": made}, measure=measure)
    found = run_trainings(conditions, test, train, 2, tmp_path, **usual)
    assert len(calls) == 4
    assert list(found) == ["real", "synthetic", "real on synthetic", "synthetic on synthetic"]
    assert [found[name]["images"]["mean"] for name in found] == [1, 1, 2, 2]
    assert found["real on synthetic"]["seg"]["mean"] < found["synthetic on synthetic"]["seg"]["mean"]
    assert run_trainings(conditions, test, train, 2, tmp_path, **usual) == found
    assert len(calls) == 4
    run_trainings(conditions, test, train, 2, tmp_path, others={"synthetic": made[:1]}, measure=measure)
    assert len(calls) == 8  # other images, other scores


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("tissue")
    for seed, name in enumerate(("train", "test", "made", "made_test")):
        (base / name).mkdir()
        (base / name / "dataset.json").write_text('{"spacing_um": [1.0, 1.0]}')
        for n in range(2):
            one = tissue(10 * seed + n)
            tifffile.imwrite(base / name / f"{n}.tif", one.image)
            tifffile.imwrite(base / name / f"{n}_masks.tif", one.labels)
    return base


def test_the_matrix_of_the_paper_is_in_the_report(folders, tmp_path, monkeypatch):
    monkeypatch.setitem(segmenters.PROTOCOLS, "multiclass", (TINY, TINY))
    monkeypatch.setattr(experiment, "distribution", lambda *sets: {})  # takes its time
    options = [f"--{name}={folders / folder}" for name, folder in (
        ("real_train", "train"), ("real_test", "test"), ("synthetic", "made"), ("synthetic_test", "made_test")
    )]  # fmt: skip
    out = tmp_path / "out"
    options += ["--protocol", "multiclass", "--seeds", "1", "--output_dir", str(out)]
    assert main(["evaluate", *options]) == 0
    record = json.loads((out / "report.json").read_text())
    names = {f"{a}2{b}" for a in ("Real", "Syn", "Mix") for b in ("Real", "Syn")}
    assert set(record["matrix"]) == names
    assert record["matrix"]["Real2Real"] == record["seg"]["real"]
    assert set(record["ablations"]) == set()
    assert {"membrane_dice", "centroid_f1", "adapted_rand_error"} < set(record["scores"]["both on synthetic"])
    assert "real on synthetic" not in record["rank_sum_p"]
    table = (out / "table.md").read_text()
    assert "| trained on, tested on | SEG |" in table
    assert all(f"| {name} |" in table for name in names)
    assert len(list((out / "runs").glob("*.json"))) == 3


def test_what_cannot_be_judged_is_said_before_anything_is_trained(folders, tmp_path):
    usual = dict(real_train=folders / "train", real_test=folders / "test", synthetic=[str(folders / "made")])
    usual |= dict(synthetic_test=folders / "made_test", protocol="multiclass", output_dir=tmp_path / "out")
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    one = tissue(77)
    tifffile.imwrite(lonely / "0.tif", one.image)
    tifffile.imwrite(lonely / "0_masks.tif", np.where(one.labels == 3, 3, 0).astype(np.uint16))
    (lonely / "dataset.json").write_text('{"spacing_um": [1.0, 1.0]}')
    for wrong, message in (
        (dict(synthetic_test=folders / "made"), "2 of 2 test images are also training images"),
        (dict(synthetic_test=folders / "test"), "2 of 2 test images are also training images"),
        (dict(real_test=lonely), "real_test: the labels show 1 cells in all: give labels of two or more"),
        (dict(pretrained="cyto3"), "pretrained and cellprob_threshold are of Cellpose"),
        (dict(masked=True, sparse=[f"real={folders / 'train'}"]), "a `protocol` of Cellpose 3"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(EvaluateSettings(**usual | wrong))
    assert not (tmp_path / "out" / "runs").exists()
