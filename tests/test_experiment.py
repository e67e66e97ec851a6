import base64
import io
import json
import re
import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import tifffile
from conftest import ball_stack, field_of_view, tiny_texture, write_ctc_2d
from PIL import Image
from scipy import stats

from cascade.cli import _few, _named, main
from cascade.data.frames import DataError
from cascade.data.prepare import prepare
from cascade.evaluation import experiment
from cascade.evaluation.checks import check_apart, check_sets
from cascade.evaluation.experiment import (
    distribution,
    evaluate,
    joined,
    mixture,
    populations,
    run_trainings,
)
from cascade.evaluation.pictures import window_of
from cascade.evaluation.population import field_distances
from cascade.evaluation.report import write_report
from cascade.evaluation.segmenters import (
    Cellpose4Settings,
    CellposeSettings,
    LabelledImage,
    cellpose3,
    cellpose4,
    drawn_planes,
    plane_count,
    segment,
    training_planes,
)
from cascade.evaluation.sources import Source
from cascade.sampling import evenly


def images(seed, count=3):
    rng = np.random.default_rng(seed)
    return [LabelledImage(*field_of_view(rng, (128, 128), 8), (0.5, 0.5)) for _ in range(count)]


def test_sets_that_share_an_image_are_refused():
    train, test = images(0), images(1)
    check_apart(train, test)
    with pytest.raises(ValueError, match="1 of 4 test images are also training images"):
        check_apart(train, [*test, train[1]])
    stack = LabelledImage(np.stack([one.image for one in train]), np.stack([one.labels for one in train]), (1, 1, 1))
    with pytest.raises(ValueError, match="also training images"):
        check_apart(train[:1], [stack])  # a slice of a test stack
    converted = [replace(train[1], image=train[1].image.astype(dtype)) for dtype in (np.int32, np.float64)]
    with pytest.raises(ValueError, match="2 of 2"):
        check_apart(train, converted)
    scaled = [replace(one, image=one.image.astype(dtype) / 1000) for one, dtype in zip(train, "fd", strict=False)]
    with pytest.raises(ValueError, match="1 of 1"):
        check_apart(scaled[:1], [replace(train[0], image=train[0].image / 1000)])


def test_what_is_apart_is_told_by_what_images_show(ctc_sparse_3d, tmp_path):
    shutil.copytree(ctc_sparse_3d, tmp_path / "set")
    seg = tmp_path / "set" / "01_GT" / "SEG"
    (first, *_) = sorted(seg.iterdir())
    shutil.copyfile(first, seg / "man_seg_000_020.tif")  # another slice of the same stack
    found = Source(tmp_path / "set", spacing_um=(2, 1, 1)).load()
    assert {one.image.shape for one in found} == {(96, 96)}
    with pytest.raises(ValueError, match="1 of 6 test images are also"):
        check_apart(found[:1], found[1:])
    check_apart(found[:2], found[2:])
    padded = [np.pad(one.whole, ((2, 2), (0, 0), (0, 0)), constant_values=7) for one in found[1:3]]
    check_apart(*([LabelledImage(stack, stack * 0, (2, 1, 1))] for stack in padded))


def test_sets_that_mix_planes_and_stacks_are_refused():
    plane = images(0, 1)[0]
    stack = LabelledImage(*ball_stack(np.random.default_rng(0)), (2.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="synthetic holds planes and stacks: give sets of one kind"):
        check_sets({"real_test": images(1), "synthetic": [plane, stack]}, {"synthetic"})


def test_stacks_are_tested_on_stacks(ctc_sparse_3d):
    slices = Source(ctc_sparse_3d, spacing_um=(2, 1, 1)).load()
    stack = LabelledImage(*ball_stack(np.random.default_rng(7)), (2.0, 1.0, 1.0))
    with pytest.raises(ValueError, match=r"whole annotated stacks.*--real_test_truth st"):
        check_sets({"real_train": slices[3:], "real_test": slices[:3], "synthetic": [stack]}, {"synthetic"})


def test_trainings_are_kept_and_not_repeated(tmp_path):
    test, calls = images(1), []

    def train(data, seed):
        calls.append((len(data), seed))
        return lambda one: one.labels * (one.labels % (len(data) + 1) > 0)  # more data finds more cells

    conditions = {"real": images(0, 1), "both": images(2, 4)}
    found = run_trainings(conditions, test, train, 2, tmp_path)
    assert sorted(calls) == [(1, 0), (1, 1), (4, 0), (4, 1)]
    assert found["both"]["seg"]["mean"] > found["real"]["seg"]["mean"] > 0
    assert found["real"]["seg"]["std"] == 0
    assert found["real"]["seg"]["n"] == 2
    (tmp_path / "runs" / "both_1.json").unlink()  # as if it had been killed before the last
    assert run_trainings(conditions, test, train, 2, tmp_path) == found
    assert len(calls) == 5


def test_the_same_images_are_trained_on_once(tmp_path):
    """Where no stack has more than a slice annotated, few annotations and all of them are the same."""
    test, calls = images(1), []

    def train(data, seed):
        calls.append(seed)
        return lambda one: one.labels * (one.labels % 3 > seed)

    conditions = {"real": images(0, 2), "both": images(2, 4), "sparse real": images(0, 2)}
    found = run_trainings(conditions, test, train, 2, tmp_path)
    assert sorted(calls) == [0, 0, 1, 1]
    assert found["sparse real"] == found["real"]
    kept = {(tmp_path / "runs" / f"{name}.npz").read_bytes() for name in ("real", "sparse real")}
    assert len(kept) == 1
    assert run_trainings(conditions, test, train, 2, tmp_path) == found
    assert len(calls) == 4


def test_several_processes_share_the_trainings(tmp_path):
    test, calls = images(1), []

    def train(data, seed):
        calls.append((len(data), seed))
        return lambda one: one.labels

    conditions = {"real": images(0, 1), "both": images(2, 4)}
    assert run_trainings(conditions, test, train, 2, tmp_path, rank=1, world=3) == {}
    first = calls[:]
    assert first == [(4, 0)]
    run_trainings(conditions, test, train, 2, tmp_path, rank=0, world=3)
    whole = run_trainings(conditions, test, train, 2, tmp_path, rank=2, world=3)
    assert sorted(calls) == [(1, 0), (1, 1), (4, 0), (4, 1)]
    assert set(whole) == {"real", "both"}


@pytest.fixture
def stubbed(monkeypatch):
    """Trainings that take no time: what was trained on how many images, and finds all cells of a test image."""
    pytest.importorskip("cellpose")
    trained = []

    def network(data, settings, seed, diameter_px=None):
        trained.append((len(data), seed, diameter_px, settings.cellprob_threshold))
        return (lambda one: one.labels), None

    monkeypatch.setattr(experiment, "cellpose3", network)
    monkeypatch.setattr(experiment, "typical_diameter", lambda data: 20.0)
    return trained


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("sets")
    return {name: write_ctc_2d(base / name, frames=n, seed=n) for n, name in enumerate(("train", "test", "made"), 2)}


def test_an_evaluation_from_folders_to_the_report(stubbed, folders, tmp_path):
    train, test, made = (Source(folders[name]) for name in ("train", "test", "made"))
    other = Source(write_ctc_2d(tmp_path / "other", frames=6, seed=9))
    given = dict(generalist=other, seeds=2, ratios=(50,), sparse={"real": train, "synthetic": made})
    given["cellprob_threshold"] = -2.0
    assert evaluate(train, test, {"synthetic": made}, tmp_path / "out", **given, rank=0, world=2) is None
    page = evaluate(train, test, {"synthetic": made}, tmp_path / "out", **given, rank=1, world=2)
    assert len(stubbed) == 2 * 5  # none, real, synthetic, both, a mixture; the sparse setting's are the same images
    assert {size for _, _, size, _ in stubbed} == {20.0, None}  # only the generalist is told how large cells are
    assert {threshold for *_, threshold in stubbed} == {-2.0}
    assert page.is_file()
    record = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(record["seg"]) == {"none", "real", "synthetic", "both"}
    assert set(record["seg_sparse"]) == {"real", "synthetic", "both"}
    assert set(record["ratios"]) == {"50"}
    assert record["seg"]["both"] == {"mean": 1.0, "std": 0.0, "n": 2}
    assert record["none"] == "a generalist trained on other"
    assert record["fid_r2r"] is None  # fewer cells than features
    assert record["kid_r2s"] is not None
    assert record["intensities_bhattacharyya"] >= 0


def test_the_last_process_reports_however_they_overtake_each_other(stubbed, folders, tmp_path, monkeypatch):
    """Process 1 is done with "none" before process 0 is, and with all the rest after it."""
    train, test, made = (Source(folders[name]) for name in ("train", "test", "made"))
    other, network, others = Source(write_ctc_2d(tmp_path / "other", 6, 9)), experiment.cellpose3, []
    given = dict(real_train=train, real_test=test, synthetic={"synthetic": made}, output_dir=tmp_path / "out")
    given |= dict(generalist=other, seeds=2, world=2)

    def overtaken(data, settings, seed, diameter_px=None):
        if diameter_px is None and not others:
            others.append("started")
            others.append(evaluate(**given, rank=0))
        return network(data, settings, seed, diameter_px)

    monkeypatch.setattr(experiment, "cellpose3", overtaken)
    monkeypatch.setattr(experiment, "distribution", lambda *sets: {})
    assert evaluate(**given, rank=1).is_file()
    assert others == ["started", None]
    assert len(stubbed) == 2 * 4


def test_what_cannot_be_compared_is_said_before_anything_is_trained(stubbed, folders, tmp_path):
    train, test, made = (Source(folders[name]) for name in ("train", "test", "made"))
    rng = np.random.default_rng(0)
    stack = tmp_path / "stacks"
    for folder, array in (("01", 0), ("01_GT/SEG", 1)):
        (stack / folder).mkdir(parents=True)
        name = "man_seg000.tif" if array else "t000.tif"
        tifffile.imwrite(stack / folder / name, ball_stack(rng)[array].astype(np.uint16))
    with pytest.raises(
        DataError, match=r"no voxel size; give --spacing_um Z Y X, in µm, or write .* to .*stacks/dataset.json"
    ):
        evaluate(train, Source(stack), {"synthetic": made}, tmp_path / "out")
    stacks = Source(stack, spacing_um=(2.0, 1.0, 1.0))
    empty = write_ctc_2d(tmp_path / "empty", frames=2, seed=7)
    for path in empty.glob("*_GT/SEG/*.tif"):
        tifffile.imwrite(path, np.zeros_like(tifffile.imread(path)))
    for wrong, message in (
        (dict(real_test=train), "also training images"),
        (dict(generalist=test), "also training images"),
        (dict(real_test=stacks), "synthetic holds planes, the test set stacks: give 3D sets"),
        (dict(synthetic={"synthetic": stacks}), "synthetic holds stacks, the test set planes: give 2D sets"),
        (dict(synthetic={"a/b": made}), "leave out the '/'"),
        (dict(synthetic={"synthetic": made, "real_test": made}), "'real_test' is a row or a set of the evaluation's"),
        (dict(synthetic={"synthetic": made, "both": made}), "'both' is a row or a set"),
        (dict(synthetic={"synthetic": made, "sparse real": made}), "'sparse real' is a row or a set"),
        (dict(sparse={"real": train, "both": made}), "'both' is a row or a set"),
        (dict(real_test=Source(empty)), "real_test: no image has a labelled cell"),
        (dict(generalist=made, pretrained="cyto3"), "give one of them"),
    ):
        given = dict(real_train=train, real_test=test, synthetic={"synthetic": made}) | wrong
        with pytest.raises(ValueError, match=message):
            evaluate(**given, output_dir=tmp_path / "out")
    assert not stubbed


def test_a_cellpose_that_is_missing_or_another_is_named_with_its_extra(monkeypatch, tmp_path, capsys):
    version = metadata.version

    def missing(name):
        if name == "cellpose":
            raise metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(ImportError, match=r"not installed: pip install -e '.\[cellpose\]'"):
        cellpose3([], CellposeSettings(), 0)
    sets = [f"--{name}={tmp_path / 'not read'}" for name in ("real_train", "real_test", "synthetic")]
    for protocol, extra in (("narrow", "cellpose"), ("cellpose4", "cellpose4")):
        assert main(["evaluate", *sets, "--output_dir", str(tmp_path / "out"), "--protocol", protocol]) == 1
        assert f"not installed: pip install -e '.[{extra}]'" in capsys.readouterr().err
    monkeypatch.setattr(metadata, "version", lambda name: "3.1.1")
    with pytest.raises(ImportError, match=r"Cellpose 4 is needed: pip install -e '.\[cellpose4\]'"):
        cellpose4([], Cellpose4Settings(), 0)


def test_the_report_is_one_page_with_everything_in_it(tmp_path):
    test, made = images(1), images(3)
    names = ("real", "synthetic", "0 % synthetic", "50 % synthetic", "sparse real", "sparse both", "harmonics")
    seg = run_trainings(dict.fromkeys(names, test), test, lambda data, seed: lambda one: one.labels, 1, tmp_path)
    fields = populations({"real test": test, "real train": images(0), "synthetic": made})
    path = write_report(tmp_path, "A <title>", seg, {"fid_r2s": 0.25}, images(0), made, test, fields)
    page = path.read_text()
    assert "A &lt;title&gt;" in page
    assert page.count("data:image/png;base64,") == 5 + 3 * (len(names) - 2) + 2 * 3  # mixtures have a plot of their own
    shown = Image.open(io.BytesIO(base64.b64decode(re.findall('alt="real " .*?base64,(.*?)"', page)[0])))
    times = shown.width // images(0)[0].image.shape[1]
    assert times > 1  # whole pixels
    every = np.array(shown)[::times, ::times, 0]
    np.testing.assert_array_equal(np.array(shown)[..., 1], every.repeat(times, 0).repeat(times, 1))
    assert np.corrcoef(every.ravel(), images(0)[0].image.ravel())[0, 1] > 0.9
    assert "http" not in page
    record = json.loads((tmp_path / "report.json").read_text())
    assert record["seg"] == {name: {"mean": 1.0, "std": 0.0, "n": 1} for name in ("real", "synthetic")}
    assert set(record["seg_sparse"]) == {"real", "both"}
    assert (set(record["ablations"]), set(record["ratios"])) == ({"harmonics"}, {"0", "50"})
    assert record["scores"]["harmonics"]["ap_0.8"]["mean"] == 1
    assert record["rank_sum_p"] == dict.fromkeys([n for n in names if not n.endswith("real")], 1.0)
    assert set(record["population"]) == {"real train", "synthetic"}
    for found in record["population"].values():
        assert [name for name, value in found.items() if value is None] == ["cells_per_image"]  # they do not vary
        assert all(value >= 0 for value in found.values() if value is not None)
    assert "| Real | 1.000 ± 0.000 |" in (tmp_path / "table.md").read_text()


def test_mixtures_have_one_size_and_the_share_that_was_asked_for():
    real, made = images(0, 5), images(1, 4)
    for share, count in ((0.0, 0), (0.5, 2), (0.75, 3), (1.0, 4)):
        mixed = mixture(real, made, share)
        assert len(mixed) == 4
        assert sum(any(one is other for other in made) for one in mixed) == count
        assert len({id(one) for one in mixed}) == 4
    with pytest.raises(ValueError, match=r"\[0, 1\], got 1.5"):
        mixture(real, made, 1.5)
    stack = LabelledImage(np.zeros((4, 8, 8)), np.zeros((4, 8, 8), int), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="single slices"):
        mixture(real, [stack], 0.5)


def test_only_what_changed_is_trained_again(tmp_path):
    trained = []

    def train(data, seed):
        trained.append((len(data), seed))
        return lambda one: one.labels

    conditions, test = {"real": images(0), "synthetic": images(1, 4)}, images(2)
    run_trainings(conditions, test, train, 1, tmp_path)
    run_trainings(conditions | {"more": images(3, 5)}, test, train, 1, tmp_path)
    assert trained == [(3, 0), (4, 0), (5, 0)]
    corrected = [replace(one, labels=np.where(one.labels == 1, 0, one.labels)) for one in conditions["real"]]
    run_trainings(conditions | {"real": corrected}, test, train, 1, tmp_path)
    assert trained[3:] == [(3, 0)]
    run_trainings({"real": corrected}, images(4), train, 1, tmp_path)
    run_trainings({"real": corrected}, images(4), train, 1, tmp_path, "other settings")
    assert trained[4:] == [(3, 0), (3, 0)]


def test_synthetic_sets_have_names_of_their_own(tmp_path):
    folder = tmp_path / "rho=0.7"
    folder.mkdir()
    assert _named(["a/synthetic", f"{folder}", "scratch=b/synthetic"]) == {
        "synthetic": Path("a/synthetic"), "rho=0.7": folder, "scratch": Path("b/synthetic"),
    }  # fmt: skip
    for wrong in (["a/x", "b/synthetic"], ["a", "c/d", "e/d"]):
        with pytest.raises(ValueError, match="give it as NAME=FOLDER"):
            _named(wrong)


def test_a_sparse_setting_needs_something_real():
    assert _few(["real=a", "synthetic=b=c"]) == {"real": Path("a"), "synthetic": Path("b=c")}
    for wrong in (["synthetic=a"], ["a"], ["real=a", "real=b"]):
        with pytest.raises(ValueError, match="each name once"):
            _few(wrong)


def test_scores_of_single_images_are_compared_by_rank(tmp_path):
    test = images(1, 6)

    def train(data, seed):
        return lambda one: one.labels * (one.labels % len(data) > 0)  # misses every second, or every fifth cell

    seg = run_trainings({"real": images(0, 2), "synthetic": images(2, 5)}, test, train, 1, tmp_path)
    write_report(tmp_path, "", seg, {}, images(0), images(3), test)
    found = json.loads((tmp_path / "report.json").read_text())["rank_sum_p"]["synthetic"]
    assert found == pytest.approx(
        stats.ranksums(seg["synthetic"]["seg_of_images"], seg["real"]["seg_of_images"]).pvalue
    )
    assert found < 0.01


def test_prepared_crops_are_a_data_set_of_single_cells(tmp_path):
    source = write_ctc_2d(tmp_path / "set", frames=2)
    prepare(source, tmp_path / "crops", crop_size=64, spacing_um=[0.5, 0.5])
    found = Source(tmp_path / "crops").load()
    assert {one.image.shape for one in found} == {(64, 64)}
    assert all(set(np.unique(one.labels)) == {0, 1} for one in found)
    cells = [(one.image, one.labels == n) for one in Source(source).load() for n in np.unique(one.labels)]
    for one in found:
        cell = one.labels > 0
        alike = [image[inside].mean() for image, inside in cells if inside.sum() == cell.sum()]
        assert min(abs(one.image[cell].mean() / mean - 1) for mean in alike) < 0.1
        assert one.image[~cell].mean() == pytest.approx(120, rel=0.3)  # nothing but background and the own halo
        assert one.spacing_um == (0.5, 0.5)
    some = Source(tmp_path / "crops", frames=3).load()
    for one, n in zip(some, evenly(len(found), 3), strict=True):
        np.testing.assert_array_equal(one.image, found[n].image)


def test_single_slices_tell_nothing_of_a_population():
    rng = np.random.default_rng(0)
    stacks = [LabelledImage(*ball_stack(rng, count=n), (2.0, 1.0, 1.0)) for n in (5, 8)]
    slices = [LabelledImage(one.image[12], one.labels[12], (1.0, 1.0)) for one in stacks]
    found = populations({"real test": stacks, "real train": slices, "synthetic": stacks})
    assert set(found) == {"real test", "synthetic"}
    assert set(field_distances(found["synthetic"], found["real test"]).values()) == {0.0}


def test_every_set_is_measured_with_its_own_voxel_size():
    """Twice as many pixels of half the size show the same."""
    test = [replace(one, labels=np.where(one.labels > 5 + n, 0, one.labels)) for n, one in enumerate(images(1))]
    finer = [LabelledImage(*(a.repeat(2, 0).repeat(2, 1) for a in (o.image, o.labels)), (0.25, 0.25)) for o in test]
    found = populations({"real test": test, "synthetic": finer})
    distances = field_distances(found["synthetic"], found["real test"])
    for name in ("cells_per_image", "size", "nearest_neighbour", "pair_correlation"):
        assert distances[name] == pytest.approx(0, abs=0.02)


def lonely(seed, count):
    """Images of one cell each, between some that show none."""
    empty = LabelledImage(images(seed + 100, 1)[0].image, np.zeros((128, 128), np.uint16), (0.5, 0.5))
    shown = [replace(one, labels=np.where(one.labels == 1, one.labels, 0)) for one in images(seed, count)]
    return [empty] * 30 + shown


def test_cells_without_neighbours_and_empty_images_leave_dashes(tmp_path):
    test, made = lonely(1, 2), images(3)
    conditions = dict.fromkeys(("real", "synthetic"), test)
    seg = run_trainings(conditions, test, lambda data, seed: lambda one: one.labels, 1, tmp_path)
    fields = populations({"real test": test, "real train": lonely(2, 4), "synthetic": made})
    facts = distribution(images(0), test, {"synthetic": made}, tiny_texture().vae.eval(), size=128)
    assert facts["kid_r2s"] is None
    page = write_report(tmp_path, "", seg, facts | {"odd": float("inf")}, images(0), made, test, fields).read_text()
    assert "<td>–</td>" in page
    text = (tmp_path / "report.json").read_text()
    assert not {"NaN", "Infinity"} & set(re.findall("[A-Za-z]+", text))
    record = json.loads(text)
    assert record["odd"] is None
    for name in ("real train", "synthetic"):
        assert record["population"][name]["nearest_neighbour"] is None
        assert record["population"][name]["pair_correlation"] is None
        assert record["population"][name]["background_level"] is not None


def test_a_single_image_has_no_spread_to_measure_in():
    found = populations({"real test": images(1, 1), "synthetic": images(2)})
    distances = field_distances(found["synthetic"], found["real test"])
    assert {name for name, value in distances.items() if value is None} == {
        "cells_per_image", "background_level", "background_sd",
    }  # fmt: skip
    assert all(value < 100 for value in distances.values() if value is not None)


def test_intensities_between_0_and_1_are_compared_as_any():
    def unit(some):
        return [replace(one, image=one.image.astype(np.float32) / 65535) for one in some]

    vae = tiny_texture().vae.eval()
    found, scaled = (
        distribution(f(images(0)), f(images(1)), {"synthetic": f(images(2))}, vae, size=32) for f in (list, unit)
    )
    assert scaled["fid_r2s"] == pytest.approx(found["fid_r2s"], rel=0.01)
    dark, bright = (np.percentile(unit(images(0))[0].image, q) for q in (5, 99))
    assert np.ptp(window_of(unit(images(0))[0].image).stretch(np.array([dark, bright]))) > 0.5


def test_distance_to_synthetic_images_grows_with_their_difference():
    vae = tiny_texture().vae.eval()
    train, test, alike = images(0), images(1), images(2)
    wrong = [LabelledImage(one.image // 2 + 300, one.labels, one.spacing_um) for one in alike]
    near, far = (distribution(train, test, {"synthetic": made}, vae, size=32) for made in (alike, wrong))
    assert near["fid_r2r"] == far["fid_r2r"]
    assert far["fid_r2s"] > 3 * near["fid_r2s"]
    assert far["kid_r2s"] > near["kid_r2s"]


def test_sources_are_read_as_they_were_asked_for(tmp_path):
    folder = write_ctc_2d(tmp_path / "set", frames=5)
    assert len(Source(folder).load()) == 5
    shutil.copytree(folder / "01", folder / "02")
    shutil.copytree(folder / "01_GT", folder / "02_GT")
    assert len(Source(folder).load()) == 10
    picked = Source(folder, sequences=("02",), frames=3).load()
    for one, n in zip(picked, (0, 2, 4), strict=True):
        np.testing.assert_array_equal(one.image, tifffile.imread(folder / "02" / f"t{n:03d}.tif"))
    with pytest.raises(ValueError, match="at least one frame"):
        Source(folder, frames=0).load()


def test_the_voxel_size_that_is_given_wins(tmp_path, caplog):
    folder = write_ctc_2d(tmp_path / "set", frames=1)
    assert Source(folder).load()[0].spacing_um == (1.0, 1.0)
    assert "taking 1 µm per pixel" in caplog.text
    caplog.clear()
    (folder / "dataset.json").write_text('{"spacing_um": [0.5, 0.25]}')
    assert Source(folder).load()[0].spacing_um == (0.5, 0.25)
    assert Source(folder, spacing_um=(0.3, 0.3)).load()[0].spacing_um == (0.3, 0.3)
    assert not caplog.text
    for wrong in ((1.0, 1.0, 1.0), (0.5,), (0.5, 0.0)):
        with pytest.raises(DataError, match="needs 2 lengths above 0"):
            Source(folder, spacing_um=wrong).load()


def test_stacks_give_planes_of_equal_spacing():
    labels = np.zeros((10, 40, 48), np.int32)
    labels[3:7, 10:20, 10:20] = 1
    planes = training_planes(LabelledImage(labels * 100.0, labels, (2.0, 0.5, 0.5)))
    assert [p.shape for p, _ in planes[:10]] == [(40, 48)] * 10
    assert {p.shape for p, _ in planes[10:]} == {(40, 48), (40, 40)}  # 10 slices of 2 µm are 40 pixels of 0.5 µm
    assert all(set(np.unique(label)) <= {0, 1} for _, label in planes)


def test_planes_are_as_bright_as_cellpose_sees_their_stack():
    """Its own normalisation, of the stack as its 3D mode does, and of a plane as it does for planes."""
    normalize_img = pytest.importorskip("cellpose.transforms").normalize_img
    image, labels = ball_stack(np.random.default_rng(1))
    planes = training_planes(LabelledImage(image, labels, (2.0, 1.0, 1.0)))
    stack = normalize_img(image[..., None].astype(np.float32), norm3D=True)[..., 0]
    np.testing.assert_allclose(np.stack([p for p, _ in planes[: len(image)]]), stack, atol=1e-4)
    ((plane, _),) = training_planes(LabelledImage(image[12], labels[12], (1.0, 1.0)))
    np.testing.assert_allclose(plane, normalize_img(image[12][..., None].astype(np.float32))[..., 0], atol=1e-4)


def test_slices_are_not_lost_among_stacks():
    stack = LabelledImage(*ball_stack(np.random.default_rng(0)), (2.0, 1.0, 1.0))
    assert plane_count(stack) == sum(label.any() for _, label in training_planes(stack))
    plane = LabelledImage(stack.image[12], stack.labels[12], (1.0, 1.0))
    both = joined([plane], [stack])
    assert sum(one is stack for one in both) == 1
    assert sum(one is plane for one in both) == plane_count(stack)
    assert len(joined([plane] * 10, [plane] * 21)) == 41


def test_a_plane_of_one_labelled_pixel_is_no_training_plane():
    """Cellpose 3 fails on it on a GPU; the ends of generated solids give some."""
    empty, pixel, pair = (np.zeros((16, 16), np.int32) for _ in range(3))
    pixel[4, 4] = pair[4, 4] = pair[4, 5] = 1
    data = [LabelledImage(labels + 100.0, labels, (1.0, 1.0)) for labels in (empty, pixel, pair)]
    _, labels = drawn_planes(data, 10, seed=0)
    assert [label.sum() for label in labels] == [2]
    with pytest.raises(ValueError, match="no training image shows a cell"):
        drawn_planes(data[:2], 10, seed=0)


def test_cells_end_where_the_threshold_says():
    pytest.importorskip("cellpose")

    class Network:
        def eval(self, image, cellprob_threshold, **options):
            return (image > cellprob_threshold).astype(int), None

    one = LabelledImage(np.arange(-3.0, 4).reshape(1, 7), np.zeros((1, 7), int), (1.0, 1.0))
    assert segment(Network(), one, 30.0).sum() == 3
    assert segment(Network(), one, 30.0, -2.0).sum() == 5


def test_cellpose_is_trained_by_seed():
    pytest.importorskip("cellpose")
    settings = CellposeSettings(width=(4, 8, 8, 256), steps=5, crop=32, batch_size=2, bfloat16=True)
    train, (test,) = images(0, 2), images(5, 1)
    trained, model = cellpose3(train, settings, seed=0)
    assert trained(test).shape == test.labels.shape
    stack = LabelledImage(*ball_stack(np.random.default_rng(0)), (2.0, 1.0, 1.0))
    assert trained(stack).shape == stack.labels.shape  # in Cellpose's 3D mode
    weights = [cellpose3(train, settings, seed)[1].net.state_dict()["output.2.weight"] for seed in (0, 1)]
    assert np.array_equal(weights[0], model.net.state_dict()["output.2.weight"])
    assert not np.array_equal(*weights)
    with pytest.raises(ValueError, match="no training image shows a cell"):
        cellpose3([LabelledImage(test.image, test.labels * 0, (1, 1))], settings, 0)
