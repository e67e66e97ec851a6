import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from conftest import tiny_texture
from made_up import labelled_images
from PIL import Image
from scipy import stats

from cascade.evaluation.experiment import distribution, populations, run_trainings
from cascade.evaluation.labelled import LabelledImage
from cascade.evaluation.pictures import window_of
from cascade.evaluation.population import field_distances
from cascade.evaluation.report import write_report


def test_the_report_is_one_page_with_everything_in_it(tmp_path):
    test, made = labelled_images(1), labelled_images(3)
    names = ("real", "synthetic", "0 % synthetic", "50 % synthetic", "sparse real", "sparse both", "harmonics")
    seg = run_trainings(dict.fromkeys(names, test), test, lambda data, seed: lambda one: one.labels, 1, tmp_path)
    fields = populations({"real test": test, "real train": labelled_images(0), "synthetic": made})
    path = write_report(tmp_path, "A <title>", seg, {"fid_r2s": 0.25}, labelled_images(0), made, test, fields)
    page = path.read_text()
    assert "A &lt;title&gt;" in page
    assert page.count("data:image/png;base64,") == 5 + 3 * (len(names) - 2) + 2 * 3  # mixtures have a plot of their own
    shown = Image.open(io.BytesIO(base64.b64decode(re.findall('alt="real " .*?base64,(.*?)"', page)[0])))
    times = shown.width // labelled_images(0)[0].image.shape[1]
    assert times > 1  # whole pixels
    every = np.array(shown)[::times, ::times, 0]
    np.testing.assert_array_equal(np.array(shown)[..., 1], every.repeat(times, 0).repeat(times, 1))
    assert np.corrcoef(every.ravel(), labelled_images(0)[0].image.ravel())[0, 1] > 0.9
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
    assert "| Real | 1.000 | 1.000 |" in (tmp_path / "table.md").read_text()


def test_scores_at_a_threshold_of_ones_own_stand_beside_the_others(tmp_path):
    test, made = labelled_images(1), labelled_images(3)

    def train(data, seed):
        def found(one, cellprob_threshold=0.0):  # the farther from −3, the fewer cells
            return one.labels * (one.labels % 8 >= abs(cellprob_threshold + 3))

        return found

    conditions = {"real": labelled_images(0, 2), "synthetic": labelled_images(2, 2)}
    before = run_trainings(conditions, test, train, 2, tmp_path)
    calls = []

    def counted(data, seed):
        calls.append(seed)
        return train(data, seed)

    seg = run_trainings(conditions, test, counted, 2, tmp_path, held_out=made)
    assert len(calls) == 4  # networks are not kept: they are trained once more
    seg = run_trainings(conditions, test, counted, 2, tmp_path, held_out=made)
    assert len(calls) == 4
    assert {name: seg["real"][name] for name in before["real"]} == before["real"]
    assert seg["real"]["seg"]["mean"] < 0.7
    write_report(tmp_path, "", seg, {}, labelled_images(0), made, test)
    record = json.loads((tmp_path / "report.json").read_text())
    assert record["tuned"]["synthetic"]["thresholds"] == [-3.0, -3.0]
    assert record["tuned"]["synthetic"]["scores"]["seg"] == {"mean": 1.0, "std": 0.0, "n": 2}
    assert record["seg"]["synthetic"]["mean"] < 0.7
    assert "| -3 -3 |" in (tmp_path / "table.md").read_text()
    assert "tuned" not in record["scores"]["real"]
    again = run_trainings(conditions, test, counted, 2, tmp_path)  # without images held out nothing is trained again
    assert (len(calls), again) == (4, before)


def test_scores_of_single_images_are_compared_by_rank(tmp_path):
    test = labelled_images(1, 6)

    def train(data, seed):
        return lambda one: one.labels * (one.labels % len(data) > 0)  # misses every second, or every fifth cell

    seg = run_trainings({"real": labelled_images(0, 2), "synthetic": labelled_images(2, 5)}, test, train, 1, tmp_path)
    write_report(tmp_path, "", seg, {}, labelled_images(0), labelled_images(3), test)
    found = json.loads((tmp_path / "report.json").read_text())["rank_sum_p"]["synthetic"]
    assert found == pytest.approx(
        stats.ranksums(seg["synthetic"]["seg_of_images"], seg["real"]["seg_of_images"]).pvalue
    )
    assert found < 0.01


def lonely(seed, count):
    """Images of one cell each, between some that show none."""
    empty = LabelledImage(labelled_images(seed + 100, 1)[0].image, np.zeros((128, 128), np.uint16), (0.5, 0.5))
    shown = [replace(one, labels=np.where(one.labels == 1, one.labels, 0)) for one in labelled_images(seed, count)]
    return [empty] * 30 + shown


def test_cells_without_neighbours_and_empty_images_leave_dashes(tmp_path):
    test, made = lonely(1, 2), labelled_images(3)
    conditions = dict.fromkeys(("real", "synthetic"), test)
    seg = run_trainings(conditions, test, lambda data, seed: lambda one: one.labels, 1, tmp_path)
    fields = populations({"real test": test, "real train": lonely(2, 4), "synthetic": made})
    facts = distribution(labelled_images(0), test, {"synthetic": made}, tiny_texture().vae.eval(), size=128)
    assert facts["kid_r2s"] is None
    page = write_report(
        tmp_path, "", seg, facts | {"odd": float("inf")}, labelled_images(0), made, test, fields
    ).read_text()
    assert "<td>–</td>" in page
    assert "<tr><td>real (training)</td><td>–</td><td>–</td><td>–</td>" in page
    judged = "| distance to test images | FID | KID | FID, scattering | KID, scattering |"
    assert judged in (tmp_path / "table.md").read_text()
    text = (tmp_path / "report.json").read_text()
    assert not {"NaN", "Infinity"} & set(re.findall("[A-Za-z]+", text))
    record = json.loads(text)
    assert record["odd"] is None
    for name in ("real train", "synthetic"):
        assert record["population"][name]["nearest_neighbour"] is None
        assert record["population"][name]["pair_correlation"] is None
        assert record["population"][name]["background_level"] is not None


def test_a_single_image_has_no_spread_to_measure_in():
    found = populations({"real test": labelled_images(1, 1), "synthetic": labelled_images(2)})
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
        distribution(f(labelled_images(0)), f(labelled_images(1)), {"synthetic": f(labelled_images(2))}, vae, size=32)
        for f in (list, unit)
    )
    assert scaled["fid_r2s"] == pytest.approx(found["fid_r2s"], rel=0.01)
    dark, bright = (np.percentile(unit(labelled_images(0))[0].image, q) for q in (5, 99))
    assert np.ptp(window_of(unit(labelled_images(0))[0].image).stretch(np.array([dark, bright]))) > 0.5
