"""Sweeps over t_start and σ: against closed forms with made-up painters, and from the command line."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import tifffile
from conftest import field_of_view
from diffusers import DDPMScheduler
from made_up import tiny_sketch_pipeline
from scipy import ndimage

from cascade.commands.cli import main
from cascade.commands.tune import scenes_of
from cascade.evaluation.images import bhattacharyya, kullback_leibler
from cascade.evaluation.settings import TuneSettings
from cascade.evaluation.sweep_report import tables, write_report
from cascade.evaluation.sweeps import (
    SketchedImage,
    Sweep,
    Tried,
    detail,
    forward,
    noised,
    recommended,
    structure_kept,
    sweep,
)
from cascade.optics.window import Window
from cascade.pipelines.sketch_ddpm import SketchPipeline
from cascade.shapes.membranes import membranes
from cascade.simulators.tissue import TissueSettings, tissue
from cascade.sketch.draw import draw_sketch
from cascade.sketch.settings import SketchSettings

WINDOW = Window(0.0, 1000.0)
KEPT = DDPMScheduler(beta_schedule="squaredcos_cap_v2").alphas_cumprod.tolist()
TIMES = (100, 200, 400, 600, 800, 1000)


def scene(seed: int = 0, size=(96, 96)) -> SketchedImage:
    """A made-up image, and its cells at their means."""
    image, labels = field_of_view(np.random.default_rng(seed), size, 6)
    means = ndimage.mean(image, labels, np.arange(labels.max() + 1))
    return SketchedImage(image.astype(np.float32), means[labels].astype(np.float32), labels > 0)


@pytest.fixture(scope="module")
def scenes():
    return [scene(0), scene(1)]


def swept(scenes, paint, **options) -> Sweep:
    return sweep(scenes, paint, window=WINDOW, kept=KEPT, **({"t_starts": (100, 400), "sigmas": (0.0,)} | options))


def test_a_painter_of_the_real_images_is_perfect(scenes):
    found = swept(scenes, lambda sketches, t_start, sigma: [one.image for one in scenes])
    for one in found.tried:
        assert one.psnr == np.inf
        assert (one.ssim, one.zncc, one.detail) == pytest.approx((1, 1, 1))
        assert one.mae == 0
        assert one.structure == found.real_structure > 0.8


def test_a_painter_of_known_error_has_its_psnr(scenes):
    def off(sketches, t_start, sigma):
        return [np.clip(one.image, 0, 900) + 0.1 * t_start for one in scenes]

    clipped = [replace(one, image=np.clip(one.image, 0, 900)) for one in scenes]
    for one in swept(clipped, off).tried:
        error = 0.1 * one.t_start / 1000
        assert one.psnr == pytest.approx(-20 * np.log10(error), abs=0.01)
        assert one.psnr_of_images == pytest.approx([one.psnr] * len(scenes), abs=0.01)
        assert one.mae == pytest.approx(error, rel=1e-3)
        assert one.zncc == pytest.approx(1)


def test_a_painter_is_given_sketches_times_and_blurs_in_order(scenes):
    calls = []

    def paint(sketches, t_start, sigma):
        calls.append((t_start, sigma))
        assert all(one is other.sketch for one, other in zip(sketches, scenes, strict=True))
        return sketches

    found = swept(scenes, paint, t_starts=(400, 100, 400), sigmas=(2.0, 0.0))
    assert calls == [(100, 0.0), (100, 2.0), (400, 0.0), (400, 2.0)]
    assert (found.t_starts, found.sigmas) == ([100, 400], [0.0, 2.0])
    assert set(found.painted) == set(calls)
    assert {len(images) for images in found.painted.values()} == {len(scenes)}
    assert found.at(400, 2.0).detail < 0.7  # sketches have no texture
    with pytest.raises(ValueError, match="no image to tune on"):
        swept([], paint)


def test_equal_images_have_no_distance_at_any_time(scenes):
    same = [replace(one, sketch=one.image) for one in scenes]
    for t in TIMES:
        p, q, _ = forward(same, WINDOW, KEPT[t - 1], 0.0)
        assert (kullback_leibler(p, q), bhattacharyya(p, q)) == pytest.approx((0, 0), abs=1e-9)


def test_distances_fall_with_time(scenes):
    """And are those of Gaussians: constant images a and b become √ᾱ a and √ᾱ b with noise of variance 1 − ᾱ."""
    dark = [SketchedImage(np.full((256, 256), 250.0), np.full((256, 256), 360.0), np.ones((256, 256), bool))]
    a, b = (2 * float(WINDOW.stretch(np.float32(value))) - 1 for value in (250.0, 360.0))
    found = []
    for t in TIMES:
        p, q, _ = forward(dark, WINDOW, KEPT[t - 1], 0.0)
        wanted = KEPT[t - 1] * (a - b) ** 2 / (2 * (1 - KEPT[t - 1]))
        found.append(kullback_leibler(p, q))
        assert bhattacharyya(p, q) == pytest.approx(wanted / 4, rel=0.1, abs=0.003)
        if wanted < 0.3:  # beyond, the bins at the ends decide
            assert found[-1] == pytest.approx(wanted, rel=0.1, abs=0.003)
    assert all(np.diff(found) < 0)
    real = [bhattacharyya(*forward(scenes, WINDOW, KEPT[t - 1], 0.0)[:2]) for t in TIMES]
    assert all(np.diff(real) < 0)


def test_noise_leaves_what_the_schedule_says():
    image = np.full((200, 200), 250.0, np.float32)  # in the middle of [−1, 1] at γ = ½
    noise = np.random.default_rng(0).standard_normal(image.shape)
    made = noised(np.where(np.indices(image.shape)[0] < 100, 1000.0, 0.0), WINDOW, 0.36, noise)
    assert made[:100].mean() == pytest.approx(0.6, abs=0.02)
    assert made[100:].mean() == pytest.approx(-0.6, abs=0.02)
    assert noised(image, WINDOW, 0.36, noise).std() == pytest.approx(0.8, rel=0.02)
    smooth = noised(np.where(noise > 0, 1000.0, 0.0), WINDOW, 1.0, noise, 2.0)
    assert smooth.std() == pytest.approx(1 / (2 * np.sqrt(np.pi) * 2), rel=0.05)  # white noise through a Gaussian


def test_structure_is_what_stands_out():
    one = scene()
    assert structure_kept(one.image, one, WINDOW) > 0.85
    moved = np.roll(one.image, 12, 1)
    assert structure_kept(moved, one, WINDOW) < 0.5
    half = np.where(np.indices(one.image.shape)[1] < 48, one.image, 120)
    assert structure_kept(half, one, WINDOW) == pytest.approx(
        one.structure[:, :48].sum() / one.structure.sum(), abs=0.1
    )
    assert structure_kept(np.full(one.image.shape, 7.0), one, WINDOW) == 0
    dark = SketchedImage(1000 - one.image, 1000 - one.sketch, one.structure)
    assert structure_kept(dark.image, dark, WINDOW) > 0.6


def test_detail_is_that_of_noise_that_was_added():
    flat = SketchedImage(*(np.full((128, 128), 250.0) for _ in range(2)), np.ones((128, 128), bool))
    assert detail(flat.image, flat, WINDOW) == 0
    noise = np.random.default_rng(0).standard_normal(flat.image.shape)
    single, double = (detail(flat.image + amount * noise, flat, WINDOW) for amount in (5.0, 10.0))
    assert double == pytest.approx(2 * single, rel=0.01)
    fine = np.sqrt(1 - 2 * ndimage.gaussian_filter(np.eye(1, 99, 49)[0], 2.0)[49] ** 2 + 1 / (16 * np.pi))
    assert single == pytest.approx(0.005 * fine, rel=0.03)  # dI/dI of the window is 1/1000 there


def tried(t_start, sigma=0.0, **values) -> Tried:
    usual = dict(kld=0.0, bd=0.001, psnr=30.0, ssim=0.9, mae=0.01, zncc=0.9, structure=0.9, detail=1.0)
    return Tried(t_start, sigma, **(usual | values))


def test_the_earliest_pair_that_meets_all_is_recommended():
    found = [
        tried(100, bd=0.3, detail=0.5),  # not noised enough
        tried(200, detail=0.7),  # too smooth
        tried(400, detail=0.85, zncc=0.90),
        tried(400, 1.0, detail=0.9, zncc=0.93),
        tried(600),
        tried(800, structure=0.5),
    ]
    assert recommended(Sweep(found, {}, 0.9)) is found[3]
    assert recommended(Sweep(found[:2], {}, 0.9)) is found[1]
    assert recommended(Sweep([found[0], found[5]], {}, 0.9)) is found[0]  # structure comes first
    assert recommended(Sweep([tried(400, detail=3.0), tried(600, detail=1.2)], {}, 0.9)).t_start == 600
    assert recommended(Sweep([tried(100, structure=0.0)], {}, 0.9)).t_start == 100


def test_the_report_shows_all_pairs_of_stacks_too(tmp_path):
    rng = np.random.default_rng(0)
    structure = np.zeros((6, 48, 40), bool)
    structure[1:5, 16:32, 10:30] = True
    sketch = np.where(structure, 600.0, 200.0).astype(np.float32)
    one = SketchedImage(rng.poisson(sketch).astype(np.float32), sketch, structure)
    found = swept([one], lambda sketches, t, sigma: [rng.poisson(sketches[0])], t_starts=TIMES, sigmas=(0.0, 1.0))
    best = recommended(found)
    write_report(tmp_path, found, best, [one], window=WINDOW, kept=KEPT, about={"model": "toy"})
    record = json.loads((tmp_path / "tune.json").read_text())
    assert record["model"] == "toy"
    assert record["recommended"] == {"t_start": best.t_start, "sigma": best.sigma}
    assert len(record["tried"]) == 12
    assert "of the best structure" in record["rule"]
    table = (tmp_path / "table.md").read_text()
    assert table == tables(found, best)
    assert table.count("**") == 2 * 8  # once for each measure
    for name in ("forward", "curves", "grid"):
        assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Raw images with masks beside them."""
    folder = tmp_path_factory.mktemp("tune") / "images"
    folder.mkdir()
    for n in range(3):
        image, labels = field_of_view(np.random.default_rng(n), (96, 96), 6)
        tifffile.imwrite(folder / f"x{n}.tif", image)
        tifffile.imwrite(folder / f"x{n}_masks.tif", labels)
    return folder


@pytest.fixture
def model(tmp_path):
    tiny_sketch_pipeline().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def run(images, model, output, *more) -> int:
    words = ["tune", str(images), "--model", str(model), "--output_dir", str(output), "--num_images", "2"]
    return main([*words, "--t_start", "20", "60", "--sigma", "0", "1", *more])


def test_a_model_is_tuned_on_raw_images_and_keeps_the_pair(images, model, tmp_path, capsys):
    assert run(images, model, tmp_path / "out", "--save") == 0
    said = capsys.readouterr()
    assert "recommended: t_start" in said.out
    assert "paints so from now on: cascade generate --model" in said.out
    assert "tuning" in said.err
    record = json.loads((tmp_path / "out" / "tune.json").read_text())
    assert record["cells"] == "detected"
    assert record["num_inference_steps"] == {"20": 1, "60": 3}
    assert [(one["t_start"], one["sigma"]) for one in record["tried"]] == [(20, 0), (20, 1), (60, 0), (60, 1)]
    assert record["structure_of_real_images"] > 0.8
    assert record["tried"][0]["psnr"] > record["tried"][2]["psnr"] > 10
    wanted, pipeline = record["recommended"], SketchPipeline.from_pretrained(model)
    how = pipeline.painting()
    assert (how.t_start, how.sigma) == (wanted["t_start"], wanted["sigma"])
    assert how.num_inference_steps == round(3 * wanted["t_start"] / 60)
    assert pipeline.sketch_settings == tiny_sketch_pipeline().sketch_settings


def test_a_model_is_tuned_on_labels_and_left_as_it_is(images, model, tmp_path, capsys):
    before = (model / "model_index.json").read_bytes()
    assert run(images, model, tmp_path / "out", "--truth", "gt") == 0
    assert "--t_start" in capsys.readouterr().out.splitlines()[-1]
    assert json.loads((tmp_path / "out" / "tune.json").read_text())["cells"] == "labels, gt"
    assert (model / "model_index.json").read_bytes() == before


def test_only_a_folder_of_ones_own_is_written_to(images, tmp_path, capsys):
    assert run(images, "nuclei2d", tmp_path / "out", "--save") == 2
    assert "is no DDPM from sketches" in capsys.readouterr().err


WRONG = [
    (["--model", "nuclei2d"], "--model nuclei2d is no DDPM from sketches"),
    (["--t_start", "1200"], "--t_start must be from 1 to 1000, got 1200"),
    (["--sigma", "-1"], "--sigma must be pixels from 0, none twice, got -1"),
    (["--spacing_um", "0.2", "0.2"], "voxels of 0.2 × 0.2 µm, and the model paints 0.5 × 0.5"),
    (["--truth", "st", "--sequences", "07"], "sequences need the Cell Tracking Challenge layout"),
    (["--output_dir", "{model}"], "the model"),
    (["--output_dir", "{images}/01"], "where the images are read from"),
    (["--num_images", "0"], "--num_images must be a whole number from 1, got 0"),
]


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_what_cannot_be_is_one_line(words, message, images, model, tmp_path, capsys):
    words = [word.format(images=images, model=model) for word in words]
    assert run(images, model, tmp_path / "out", *words) in (1, 2)
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in said
    assert not (tmp_path / "out" / "tune.json").exists()


def test_images_without_cells_are_named(model, tmp_path, capsys):
    noise = np.random.default_rng(0).poisson(300, (64, 64)).astype(np.uint16)
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images" / "a.tif", noise)
    assert run(tmp_path / "images", model, tmp_path / "out") == 1
    assert "no cell can be seen in the middle of any image" in capsys.readouterr().err


def test_images_of_fewer_channels_than_the_model_paints_are_refused(images, tmp_path, capsys):
    tiny_sketch_pipeline(channels=2).save_pretrained(tmp_path / "model")
    assert run(images, tmp_path / "model", tmp_path / "out") == 1
    assert "which has no axis of 2 channels" in capsys.readouterr().err


def test_a_model_of_membranes_is_tuned_on_cells_between_them(tmp_path):
    rng = np.random.default_rng(0)
    scene = tissue(rng, TissueSettings(canvas_size=(120, 130), spacing_um=(0.5, 0.5), diameter_um=(11.0, 13.0)))
    own = SketchSettings(
        structure="membranes", brightness=(400.0,), background=(100.0,), thickness_um=1.2, softness_um=0.4
    )
    light = draw_sketch(scene, own, rng) + rng.normal(0, 10, scene.labels.shape)
    (tmp_path / "raw").mkdir()
    tifffile.imwrite(tmp_path / "raw" / "t0.tif", light.clip(0).astype(np.uint16))
    pipeline = tiny_sketch_pipeline(sketch=asdict(own), spacing_um=[0.5, 0.5])
    words = dict(
        source=tmp_path / "raw", model=str(tmp_path / "model"), spacing_um=(0.5, 0.5), output_dir=tmp_path / "o"
    )
    (seen,) = scenes_of(TuneSettings(**words), pipeline)
    walls = membranes(scene.labels, scene.spacing_um, own.thickness_um) > 0
    assert (seen.structure & walls).sum() > 0.8 * seen.structure.sum()
    assert np.corrcoef(seen.sketch.ravel(), light.ravel())[0, 1] > 0.9
