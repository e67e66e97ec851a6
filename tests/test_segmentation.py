import numpy as np
import pytest
import tifffile
from scipy import ndimage
from skimage import feature, filters, measure, segmentation

from cascade.evaluation.segmentation import overlap, score
from cascade.evaluation.sources import Source


def blocks(*boxes, shape=(40, 40)):
    labels = np.zeros(shape, np.uint16)
    for number, (y0, y1, x0, x1) in enumerate(boxes, 1):
        labels[y0:y1, x0:x1] = number
    return labels


def random_case(seed):
    """Cells, and a segmentation of them that shifts some, merges two, splits one, misses one, invents one."""
    rng = np.random.default_rng(seed)
    truth, predicted = np.zeros((120, 120), np.uint16), np.zeros((120, 120), np.uint16)
    for n, (y, x) in enumerate((y, x) for y in range(10, 110, 20) for x in range(10, 110, 20)):
        truth[y : y + 14, x : x + 14] = n + 1
        dy, dx = rng.integers(-5, 6, 2)
        if n != 7:
            predicted[max(y + dy, 0) : y + dy + 14, max(x + dx, 0) : x + dx + 14] = n + 3
    predicted[predicted == 8] = 9
    predicted[10:17, 10:24] = 77
    predicted[112:118, 2:20] = 99
    return truth, predicted


def test_scores_of_a_case_done_by_hand():
    truth = blocks((0, 10, 0, 10), (20, 30, 0, 10), (20, 30, 20, 30))
    predicted = blocks((0, 10, 0, 8), (20, 30, 5, 15))  # J = 0.8; exactly half covered does not count; missed
    scores = score([truth], [predicted])
    assert scores.seg == pytest.approx(0.8 / 3)
    assert scores.ap[0.5] == pytest.approx(1 / 4)  # 1 found, 2 missed, 1 invented
    assert scores.ap[0.8] == pytest.approx(1 / 4)
    assert scores.ap[0.9] == 0
    assert (scores.found[0.5], scores.found[0.8], scores.found[0.9]) == (1 / 3, 1 / 3, 0)
    assert scores.f1 == pytest.approx(2 / 5)
    assert scores.dice == pytest.approx(2 * 130 / (300 + 180))


def test_cells_that_nobody_annotated_cost_no_share_of_found_ones():
    truth = blocks((0, 10, 0, 10))
    predicted = blocks((0, 10, 0, 10), (20, 30, 0, 10), (20, 30, 20, 30))
    scores = score([truth], [predicted])
    assert (scores.found[0.9], scores.ap[0.9]) == (1, 1 / 3)


def test_two_halves_of_a_cell_are_one_match_where_one_of_them_is_halved_too():
    """IoU is exactly 0.5 four times, and three pairs cannot be made of them (cellpose.metrics: two, one, one)."""
    truth, predicted = np.array([[1, 1, 1, 1, 2, 2, 3, 3]]), np.array([[1, 1, 2, 2, 3, 3, 3, 3]])
    assert score([truth], [predicted]).ap[0.5] == 2 / (2 + 1 + 1)


def test_overlaps_are_those_of_a_table_of_all_cells():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 40, (2, 30, 30)) * 70_000
    found = overlap(truth, predicted)
    ids, others = np.unique(truth)[1:], np.unique(predicted)[1:]
    table = np.array([[np.sum((truth == a) & (predicted == b)) for b in others] for a in ids])
    np.testing.assert_array_equal(found.pairs, np.argwhere(table))
    np.testing.assert_array_equal(found.shared, table[table > 0])
    np.testing.assert_array_equal(found.true_sizes, [np.sum(truth == a) for a in ids])
    np.testing.assert_array_equal(found.predicted_sizes, [np.sum(predicted == b) for b in others])


def test_perfect_empty_and_impossible_cases():
    truth = blocks((0, 10, 0, 10), (20, 30, 0, 10))
    thresholds = ("0.5", "0.6", "0.7", "0.8", "0.9")
    names = ["seg", *(f"{kind}_{one}" for kind in ("ap", "found") for one in thresholds), "f1", "dice"]
    assert score([truth], [truth * 7]).to_dict() == dict.fromkeys(names, 1.0)
    nothing = score([truth], [np.zeros_like(truth)])
    assert nothing.seg == nothing.f1 == nothing.dice == nothing.ap[0.5] == 0
    assert score([truth, truth * 0], [truth, truth * 0]).seg == 1  # an empty image, rightly left empty
    with pytest.raises(ValueError, match="nothing to measure"):
        score([truth * 0], [truth])
    with pytest.raises(ValueError, match="has shape"):
        overlap(truth, truth[:-1])


@pytest.fixture(scope="module", params=["made-up cells", "real frames"])
def segmented(request) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Labels, and a segmentation of them."""
    if request.param == "made-up cells":
        truths, predictions = zip(*(random_case(seed) for seed in range(3)), strict=True)
        return list(truths), list(predictions)
    images = Source(request.getfixturevalue("real_data") / "BBBC039", sequences=("02",)).load()[:20]
    return [one.labels for one in images], [found_cells(one.image) for one in images]


def found_cells(image):
    """Labels by Otsu's threshold and a watershed of the distances."""
    smooth = ndimage.gaussian_filter(image.astype(float), 1)
    inside = smooth > filters.threshold_otsu(smooth)
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(inside), 1)
    peaks = feature.peak_local_max(depth, min_distance=5, labels=measure.label(inside))
    markers = np.zeros(image.shape, int)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return segmentation.watershed(-depth, markers, mask=inside)


def test_precision_agrees_with_cellpose(segmented):
    metrics = pytest.importorskip("cellpose.metrics")
    truths, predictions = ([np.unique(x, return_inverse=True)[1].reshape(x.shape) for x in xs] for xs in segmented)
    theirs = metrics.average_precision(truths, predictions, [0.5, 0.6, 0.7, 0.8, 0.9])
    for one, (truth, predicted) in enumerate(zip(*segmented, strict=True)):
        np.testing.assert_allclose(list(score([truth], [predicted]).ap.values()), theirs[0][one], atol=1e-6)
    np.testing.assert_allclose(list(score(*segmented).ap.values()), theirs[0].mean(0), atol=1e-6)


def test_seg_agrees_with_the_cell_tracking_challenge(segmented, tmp_path):
    evaluate = pytest.importorskip("ctc_metrics.scripts.evaluate")
    truth_folder, result_folder = tmp_path / "01_GT", tmp_path / "01_RES"
    for folder in (truth_folder / "SEG", truth_folder / "TRA", result_folder):
        folder.mkdir(parents=True)
    tracks = {truth_folder / "TRA" / "man_track.txt": [], result_folder / "res_track.txt": []}
    for frame, images in enumerate(zip(*segmented, strict=True)):
        tifffile.imwrite(truth_folder / "SEG" / f"man_seg{frame:03d}.tif", images[0].astype(np.uint16))
        paths = truth_folder / "TRA" / f"man_track{frame:03d}.tif", result_folder / f"mask{frame:03d}.tif"
        for track, path, labels in zip(tracks, paths, images, strict=True):
            unique = np.where(labels > 0, labels + 1000 * frame, 0)  # every frame's cells are tracks of their own
            tifffile.imwrite(path, unique.astype(np.uint16))
            tracks[track] += [f"{n} {frame} {frame} 0" for n in np.unique(unique) if n]
    for path, lines in tracks.items():
        path.write_text("\n".join(lines) + "\n")
    theirs = evaluate.evaluate_sequence(str(result_folder), str(truth_folder), ["SEG"])["SEG"]
    ours = score(*segmented).seg
    print(f"SEG {ours:.4f}, differs by {abs(ours - theirs):.0e}")
    assert ours == pytest.approx(theirs, abs=1e-6)
