import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from conftest import ball_stack, tiny_texture, write_ctc_2d
from made_up import labelled_images

from cascade.data.frames import DataError
from cascade.evaluation import experiment, segmenters
from cascade.evaluation.experiment import distribution, evaluate, populations, run_trainings
from cascade.evaluation.labelled import LabelledImage, plane_count, training_planes
from cascade.evaluation.mixtures import joined, mixture
from cascade.evaluation.population import field_distances
from cascade.evaluation.settings import EvaluateSettings


def test_trainings_are_kept_and_not_repeated(tmp_path):
    test, calls = labelled_images(1), []

    def train(data, seed):
        calls.append((len(data), seed))
        return lambda one: one.labels * (one.labels % (len(data) + 1) > 0)  # more data finds more cells

    conditions = {"real": labelled_images(0, 1), "both": labelled_images(2, 4)}
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
    test, calls = labelled_images(1), []

    def train(data, seed):
        calls.append(seed)
        return lambda one: one.labels * (one.labels % 3 > seed)

    conditions = {"real": labelled_images(0, 2), "both": labelled_images(2, 4), "sparse real": labelled_images(0, 2)}
    found = run_trainings(conditions, test, train, 2, tmp_path)
    assert sorted(calls) == [0, 0, 1, 1]
    assert found["sparse real"] == found["real"]
    kept = {(tmp_path / "runs" / f"{name}.npz").read_bytes() for name in ("real", "sparse real")}
    assert len(kept) == 1
    assert run_trainings(conditions, test, train, 2, tmp_path) == found
    assert len(calls) == 4


def test_several_processes_share_the_trainings(tmp_path):
    test, calls = labelled_images(1), []

    def train(data, seed):
        calls.append((len(data), seed))
        return lambda one: one.labels

    conditions = {"real": labelled_images(0, 1), "both": labelled_images(2, 4)}
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

    monkeypatch.setattr(segmenters, "cellpose3", network)
    monkeypatch.setattr(experiment, "typical_diameter", lambda data: 20.0)
    return trained


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("sets")
    return {name: write_ctc_2d(base / name, frames=n, seed=n) for n, name in enumerate(("train", "test", "made"), 2)}


def test_an_evaluation_from_folders_to_the_report(stubbed, folders, tmp_path):
    settings = EvaluateSettings(
        real_train=folders["train"],
        real_test=folders["test"],
        synthetic=[str(folders["made"])],
        generalist=write_ctc_2d(tmp_path / "other", frames=6, seed=9),
        seeds=2,
        ratios=(50,),
        sparse=[f"real={folders['train']}", f"synthetic={folders['made']}"],
        cellprob_threshold=-2.0,
        output_dir=tmp_path / "out",
    )
    assert evaluate(settings, rank=0, world=2) is None
    page = evaluate(settings, rank=1, world=2)
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


def test_without_real_images_to_train_on_what_was_generated_is_judged_alone(stubbed, folders, tmp_path):
    settings = EvaluateSettings(
        real_test=folders["test"], synthetic=[str(folders["made"])], seeds=1, output_dir=tmp_path / "out"
    )
    page = evaluate(settings)
    record = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(record["seg"]) == {"synthetic"}
    assert "fid_r2r" not in record
    assert record["kid_r2s"] is not None
    assert "real (training)" not in page.read_text()
    with pytest.raises(ValueError, match="give `real_train`"):
        EvaluateSettings(real_test="a", synthetic=["b"], ratios=(50,), output_dir="c")


def test_labels_that_others_found_are_a_row_of_their_own(stubbed, folders, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "distribution", lambda *sets: {})
    results, silver = tmp_path / "results", tmp_path / "silver" / "01_ST" / "SEG"
    results.mkdir(), silver.mkdir(parents=True)
    truths = sorted((folders["test"] / "01_GT" / "SEG").glob("*.tif"))
    for n, path in enumerate(truths):
        labels = tifffile.imread(path)
        number = path.stem.removeprefix("man_seg")
        tifffile.imwrite(results / f"mask{number}.tif", labels * (n > 0))  # all of the first image's are missed
        tifffile.imwrite(silver / f"man_seg{number}.tif", labels)
    usual = dict(real_test=folders["test"], synthetic=[str(folders["made"])], seeds=1, output_dir=tmp_path / "out")
    given = [f"tool={results}", f"silver={tmp_path / 'silver'}"]
    evaluate(EvaluateSettings(**usual, predictions=given))
    assert len(stubbed) == 1  # nothing is trained for them
    record = json.loads((tmp_path / "out" / "report.json").read_text())
    assert record["scores"]["silver"]["ap_0.9"] == {"mean": 1.0, "std": 0.0, "n": 1}
    counts = [len(np.unique(tifffile.imread(path))) - 1 for path in truths]
    assert record["scores"]["tool"]["seg"]["mean"] == pytest.approx(1 - counts[0] / sum(counts))
    assert set(record["ablations"]) == {"tool", "silver"}
    (results / f"man_seg{number}.tif").write_bytes((results / f"mask{number}.tif").read_bytes())
    with pytest.raises(DataError, match=f"man_seg{number}.tif and mask{number}.tif are both of 01/t{number}"):
        evaluate(EvaluateSettings(**usual, predictions=given))
    (results / f"man_seg{number}.tif").unlink()
    tifffile.imwrite(results / f"mask{number}.tif", labels[1:])
    with pytest.raises(DataError, match=f"mask{number}.tif: shape .* does not fit"):
        evaluate(EvaluateSettings(**usual, predictions=given))
    (results / f"mask{number}.tif").unlink()
    with pytest.raises(DataError, match=f"no file is of 01/t{number}"):
        evaluate(EvaluateSettings(**usual, predictions=given))
    for wrong in (["tool"], [*given, f"tool={results}"]):
        with pytest.raises(ValueError, match="predictions takes NAME=FOLDER, each name once"):
            EvaluateSettings(**usual, predictions=wrong)
    with pytest.raises(ValueError, match="'both' is a row or a set of the evaluation's own"):
        evaluate(EvaluateSettings(**usual, predictions=[f"both={results}"]))
    with pytest.raises(DataError, match=r"t000\.tif: the image itself, not labels"):
        evaluate(EvaluateSettings(**usual, predictions=[f"raw={folders['test'] / '01'}"]))
    with pytest.raises(ValueError, match="is where the images are read from"):
        evaluate(EvaluateSettings(**(usual | {"output_dir": folders["made"]})))


def test_another_file_of_the_same_name_is_another_pretrained_model(stubbed, folders, tmp_path, monkeypatch):
    asked, file = [], tmp_path / "model"
    monkeypatch.setattr(
        experiment, "published", lambda name, *how: asked.append(name) or (lambda one, **how: one.labels)
    )
    usual = dict(real_test=folders["test"], synthetic=[str(folders["made"])], seeds=1, output_dir=tmp_path / "out")
    keys = []
    for content in (b"one", b"two"):
        file.write_bytes(content)
        evaluate(EvaluateSettings(**usual, pretrained=str(file)))
        keys.append(json.loads((tmp_path / "out" / "runs" / "none_0.json").read_text())["key"])
    assert keys[0] != keys[1]


def test_few_annotations_can_be_learnt_with_a_loss_that_passes_over_the_rest(stubbed, folders, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "distribution", lambda *sets: {})
    usual = dict(real_test=folders["test"], synthetic=[str(folders["made"])], seeds=1, output_dir=tmp_path / "out")
    evaluate(EvaluateSettings(**usual, sparse=[f"real={folders['train']}"], masked=True))
    record = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(record["seg_sparse"]) == {"real", "masked"}
    assert len(stubbed) == 3  # the same images, but another training
    with pytest.raises(ValueError, match="masked needs `sparse` real=FOLDER"):
        EvaluateSettings(**usual, masked=True)


def test_the_last_process_reports_however_they_overtake_each_other(stubbed, folders, tmp_path, monkeypatch):
    """Process 1 is done with "none" before process 0 is, and with all the rest after it."""
    network, others = segmenters.cellpose3, []
    settings = EvaluateSettings(
        real_train=folders["train"],
        real_test=folders["test"],
        synthetic=[str(folders["made"])],
        generalist=write_ctc_2d(tmp_path / "other", 6, 9),
        seeds=2,
        output_dir=tmp_path / "out",
    )

    def overtaken(data, own, seed, diameter_px=None):
        if diameter_px is None and not others:
            others.append("started")
            others.append(evaluate(settings, rank=0, world=2))
        return network(data, own, seed, diameter_px)

    monkeypatch.setattr(segmenters, "cellpose3", overtaken)
    monkeypatch.setattr(experiment, "distribution", lambda *sets: {})
    assert evaluate(settings, rank=1, world=2).is_file()
    assert others == ["started", None]
    assert len(stubbed) == 2 * 4


def test_images_held_out_were_not_trained_on(stubbed, folders, tmp_path):
    made = str(folders["made"])
    settings = EvaluateSettings(
        real_test=folders["test"], synthetic=[made], held_out=folders["made"], seeds=1, output_dir=tmp_path / "out"
    )
    with pytest.raises(ValueError, match="held-out images are also training images"):
        evaluate(settings)
    assert not stubbed


def test_what_cannot_be_compared_is_said_before_anything_is_trained(stubbed, folders, tmp_path):
    train, test, made = (str(folders[name]) for name in ("train", "test", "made"))
    rng = np.random.default_rng(0)
    stack = tmp_path / "stacks"
    for folder, array in (("01", 0), ("01_GT/SEG", 1)):
        (stack / folder).mkdir(parents=True)
        name = "man_seg000.tif" if array else "t000.tif"
        tifffile.imwrite(stack / folder / name, ball_stack(rng)[array].astype(np.uint16))
    usual = dict(real_train=train, real_test=test, synthetic=[made], output_dir=tmp_path / "out")
    with pytest.raises(
        DataError, match=r"no voxel size; give spacing_um Z Y X, in µm, or write .* to .*stacks/dataset.json"
    ):
        evaluate(EvaluateSettings(**usual | dict(real_test=stack)))
    (stack / "dataset.json").write_text('{"spacing_um": [2.0, 1.0, 1.0]}')
    empty = write_ctc_2d(tmp_path / "empty", frames=2, seed=7)
    for path in empty.glob("*_GT/SEG/*.tif"):
        tifffile.imwrite(path, np.zeros_like(tifffile.imread(path)))
    for wrong, message in (
        (dict(real_test=train), "also training images"),
        (dict(generalist=test), "also training images"),
        (dict(real_test=stack), "synthetic holds planes, the test set stacks: give 3D sets"),
        (dict(synthetic=[str(stack)]), "synthetic holds stacks, the test set planes: give 2D sets"),
        (dict(synthetic=[made, f"a/b={made}"]), "leave out the '/'"),
        (dict(synthetic=[made, f"real_test={made}"]), "'real_test' is a row or a set of the evaluation's"),
        (dict(synthetic=[made, f"both={made}"]), "'both' is a row or a set"),
        (dict(synthetic=[made, f"sparse real={made}"]), "'sparse real' is a row or a set"),
        (dict(sparse=[f"real={train}", f"both={made}"]), "'both' is a row or a set"),
        (dict(real_test=empty), "real_test: no image has a labelled cell"),
        (dict(generalist=made, pretrained="cyto3"), "give one of them"),
    ):
        with pytest.raises(ValueError, match=message):
            evaluate(EvaluateSettings(**usual | wrong))
    assert not stubbed


def test_mixtures_have_one_size_and_the_share_that_was_asked_for():
    real, made = labelled_images(0, 5), labelled_images(1, 4)
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

    conditions, test = {"real": labelled_images(0), "synthetic": labelled_images(1, 4)}, labelled_images(2)
    run_trainings(conditions, test, train, 1, tmp_path)
    run_trainings(conditions | {"more": labelled_images(3, 5)}, test, train, 1, tmp_path)
    assert trained == [(3, 0), (4, 0), (5, 0)]
    corrected = [replace(one, labels=np.where(one.labels == 1, 0, one.labels)) for one in conditions["real"]]
    run_trainings(conditions | {"real": corrected}, test, train, 1, tmp_path)
    assert trained[3:] == [(3, 0)]
    run_trainings({"real": corrected}, labelled_images(4), train, 1, tmp_path)
    run_trainings({"real": corrected}, labelled_images(4), train, 1, tmp_path, "other settings")
    assert trained[4:] == [(3, 0), (3, 0)]


def test_single_slices_tell_nothing_of_a_population():
    rng = np.random.default_rng(0)
    stacks = [LabelledImage(*ball_stack(rng, count=n), (2.0, 1.0, 1.0)) for n in (5, 8)]
    slices = [LabelledImage(one.image[12], one.labels[12], (1.0, 1.0)) for one in stacks]
    found = populations({"real test": stacks, "real train": slices, "synthetic": stacks})
    assert set(found) == {"real test", "synthetic"}
    assert set(field_distances(found["synthetic"], found["real test"]).values()) == {0.0}


def test_every_set_is_measured_with_its_own_voxel_size():
    """Twice as many pixels of half the size show the same."""
    test = [
        replace(one, labels=np.where(one.labels > 5 + n, 0, one.labels)) for n, one in enumerate(labelled_images(1))
    ]
    finer = [LabelledImage(*(a.repeat(2, 0).repeat(2, 1) for a in (o.image, o.labels)), (0.25, 0.25)) for o in test]
    found = populations({"real test": test, "synthetic": finer})
    distances = field_distances(found["synthetic"], found["real test"])
    for name in ("cells_per_image", "size", "nearest_neighbour", "pair_correlation"):
        assert distances[name] == pytest.approx(0, abs=0.02)


def test_distance_to_synthetic_images_grows_with_their_difference():
    vae = tiny_texture().vae.eval()
    train, test, alike = labelled_images(0), labelled_images(1), labelled_images(2)
    wrong = [LabelledImage(one.image // 2 + 300, one.labels, one.spacing_um) for one in alike]
    near, far = (distribution(train, test, {"synthetic": made}, vae, size=32) for made in (alike, wrong))
    assert near["fid_r2r"] == far["fid_r2r"]
    assert far["fid_r2s"] > 3 * near["fid_r2s"]
    assert far["kid_r2s"] > near["kid_r2s"]


def test_slices_are_not_lost_among_stacks():
    stack = LabelledImage(*ball_stack(np.random.default_rng(0)), (2.0, 1.0, 1.0))
    assert plane_count(stack) == sum(label.any() for _, label in training_planes(stack))
    plane = LabelledImage(stack.image[12], stack.labels[12], (1.0, 1.0))
    both = joined([plane], [stack])
    assert sum(one is stack for one in both) == 1
    assert sum(one is plane for one in both) == plane_count(stack)
    assert len(joined([plane] * 10, [plane] * 21)) == 41
