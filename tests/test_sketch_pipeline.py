"""The pipeline of the DDPM from sketches: saved and loaded, the same image for the same seed, mistakes in one line."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from made_up import tiny_sketch_pipeline
from scipy import ndimage

from cascade.annotation import Annotation
from cascade.diffusion.painting import PaintingSettings
from cascade.evaluation.faithfulness import faithfulness
from cascade.hub.folders import ModelError
from cascade.optics.window import Window
from cascade.pipelines.sketch_ddpm import SketchPipeline
from cascade.rng import stream
from cascade.shapes.membranes import membranes
from cascade.simulators.nuclei import NucleiSettings, nuclei
from cascade.simulators.tissue import TissueSettings, tissue
from cascade.sketch.draw import asked, draw_sketch
from cascade.sketch.settings import SketchSettings

FAST = {"t_start": 60, "num_inference_steps": 3}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scene(size=(48, 56), spacing=(0.5, 0.5), seed=0) -> Annotation:
    """Balls on a grid, each with its own id."""
    labels = np.zeros(size, np.uint16)
    places = np.stack(np.meshgrid(*[np.arange(n) for n in size], indexing="ij"), -1)
    for n, corner in enumerate(np.argwhere(np.ones([max(side // 16, 1) for side in size])), 1):
        centre = np.minimum(8 + 16 * corner + stream(seed, "place", n).uniform(-3, 3, len(size)), np.array(size) - 3)
        labels[((places - centre) ** 2).sum(-1) <= 25] = n
    return Annotation.of_labels(labels, spacing)


def flat(size, value=500.0) -> np.ndarray:
    return np.full(size, value, np.float32)


def test_an_annotation_becomes_an_image_that_says_what_is_known():
    pipeline, annotation = tiny_sketch_pipeline(), scene()
    made = pipeline(annotation, generator=seeded(3), **FAST)
    (sample,) = made.samples
    assert sample.labels is annotation.labels
    assert (sample.image.shape, sample.image.dtype) == ((48, 56), np.uint16)
    np.testing.assert_array_equal(sample.image, np.rint(made.images[0]))
    assert all(cell.brightness is not None for cell in sample.cells)
    (settings,), seed = pipeline.sketch_settings, sample.seed
    np.testing.assert_array_equal(made.sketches[0], draw_sketch(annotation, settings, stream(seed, "sketch", 0)))
    told = asked(annotation, settings, stream(seed, "sketch", 0))
    assert [cell.brightness for cell in told.cells] == [cell.brightness for cell in sample.cells]
    again = pipeline.paint(annotation, sample.seed, 0, PaintingSettings(**FAST))
    assert again.image.tobytes() == sample.image.tobytes()


@pytest.mark.parametrize(
    ("dimensions", "channels", "size"), [(2, 1, (37, 50)), (2, 3, (40, 24)), (3, 1, (7, 20, 33)), (3, 2, (8, 16, 16))]
)
def test_sketches_of_any_kind_come_back_as_large(dimensions, channels, size):
    pipeline = tiny_sketch_pipeline(dimensions, channels)
    shape = (channels, *size) if channels > 1 else size
    made = pipeline(sketches=flat(shape), generator=seeded(), **FAST)
    assert made.samples == []
    (image,) = made.images
    assert (image.shape, image.dtype) == (shape, np.float32)
    low, high = pipeline.windows[0].low, pipeline.windows[0].high
    assert low <= image.min() < image.max() <= high
    assert made.sketches[0].shape == shape


def test_an_image_depends_on_its_seed_and_number_alone():
    """Not on how many are painted together, nor on what else is."""
    pipeline = tiny_sketch_pipeline()
    sketches = [flat((32, 40), 300 + 50 * n) for n in range(5)]
    sketches.insert(2, flat((24, 24)))
    together = pipeline(sketches=sketches, generator=seeded(7), micro_batch_size=4, **FAST).images
    apart, fewer = (
        pipeline(sketches=some, generator=seeded(7), micro_batch_size=1, **FAST).images
        for some in (sketches, sketches[:3])
    )
    assert [one.tobytes() for one in fewer] == [one.tobytes() for one in apart[:3]]
    for one, other in zip(together, apart, strict=True):  # kernels sum batches in another order
        np.testing.assert_allclose(one, other, atol=0.01)
    same = pipeline(sketches=[sketches[0]] * 2, generator=seeded(7), **FAST).images
    assert np.abs(same[0] - same[1]).mean() > 1  # numbers are told apart
    other = pipeline(sketches=sketches[0], generator=seeded(8), **FAST).images[0]
    assert np.abs(other - same[0]).mean() > 1


def test_painting_one_by_one_gives_the_same_bytes_in_any_order():
    pipeline, scenes, how = tiny_sketch_pipeline(), [scene(seed=n) for n in range(3)], PaintingSettings(**FAST)
    forth = {n: pipeline.paint(scenes[n], 11, n, how).image.tobytes() for n in range(3)}
    back = {n: pipeline.paint(scenes[n], 11, n, how).image.tobytes() for n in reversed(range(3))}
    assert forth == back
    assert len(set(forth.values())) == 3


def test_little_noise_and_an_untrained_network_leave_the_sketch():
    """ε = 0 predicts x_0 = x_t / √ᾱ: at t_start 1 that is the sketch but for a trace of noise."""
    pipeline = tiny_sketch_pipeline(trained=False)
    sketch = 300 + 900 * np.hypot(*np.mgrid[-1:1:48j, -1:1:40j]).astype(np.float32)
    made = pipeline(sketches=sketch, t_start=1, sigma=0, generator=seeded()).images[0]
    window, kept = pipeline.windows[0], float(pipeline.scheduler.alphas_cumprod[0])
    noise = window.stretch(made) - window.stretch(sketch)
    assert noise.std() == pytest.approx(0.5 * np.sqrt((1 - kept) / kept), rel=0.1)
    assert np.corrcoef(made.ravel(), sketch.ravel())[0, 1] > 0.99


def test_tiles_change_next_to_nothing():
    pipeline, sketch = tiny_sketch_pipeline(), flat((90, 75))
    sketch[20:60, 30:50] = 1500
    whole = pipeline(sketches=sketch, generator=seeded(), **FAST).images[0]
    tiled = pipeline(sketches=sketch, generator=seeded(), tile_size=(64, 64), tile_overlap=24, **FAST).images[0]
    assert 0 < np.abs(tiled - whole).max() < 0.01 * np.ptp(whole)
    with pytest.raises(ValueError, match="multiples of 2 for this network"):
        pipeline(sketches=sketch, tile_size=(33, 33), **FAST)
    with pytest.raises(ValueError, match="larger than their overlap"):
        pipeline(sketches=sketch, tile_size=(32, 32), tile_overlap=32, **FAST)


@pytest.mark.parametrize(("size", "tile"), [((90, 75), None), ((90, 75), (64, 64)), ((33, 20), (32, 32))])
def test_its_bar_counts_the_networks_calls(size, tile, capsys):
    pipeline, calls = tiny_sketch_pipeline(), []
    pipeline.unet.register_forward_hook(lambda *_: calls.append(1))
    pipeline.set_progress_bar_config(delay=0, leave=True, mininterval=0)
    pipeline(sketches=flat(size), generator=seeded(), **FAST | ({"tile_size": tile, "tile_overlap": 8} if tile else {}))
    assert f"| {len(calls)}/{len(calls)} " in capsys.readouterr().err
    tiny_sketch_pipeline()(sketches=flat(size), generator=seeded(), **FAST)
    assert not capsys.readouterr().err  # what takes no time shows none


@pytest.mark.parametrize("solver", ["ddim", "dpm++", "ancestral"])
def test_every_solver_paints(solver):
    pipeline = tiny_sketch_pipeline()
    made = [pipeline(sketches=flat((16, 24)), solver=solver, generator=seeded(n), **FAST).images[0] for n in (0, 0, 1)]
    assert made[0].tobytes() == made[1].tobytes() != made[2].tobytes()


@pytest.mark.parametrize("options", [{}, {"dimensions": 3, "channels": 2}])
def test_it_comes_back_from_a_folder_of_safetensors(options, tmp_path):
    pipeline = tiny_sketch_pipeline(**options)
    pipeline.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    back = SketchPipeline.from_pretrained(tmp_path)
    assert (back.windows, back.spacing_um) == (pipeline.windows, pipeline.spacing_um)
    assert back.sketch_settings == pipeline.sketch_settings
    assert back.painting() == pipeline.painting()
    size = (8, 16, 24)[-pipeline.unet.config.dimensions :]
    sketch = flat(size if pipeline.unet.config.in_channels == 1 else (2, *size))
    one, other = (p(sketches=sketch, generator=seeded(), **FAST).images[0] for p in (pipeline, back))
    np.testing.assert_allclose(one, other, rtol=1e-4)
    twice = SketchPipeline.from_pretrained(tmp_path)(sketches=sketch, generator=seeded(), **FAST).images[0]
    assert twice.tobytes() == other.tobytes()


@pytest.mark.parametrize("missing", ["unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"])
def test_a_folder_with_something_missing_is_named(missing, tmp_path):
    tiny_sketch_pipeline().save_pretrained(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(ModelError, match=str(tmp_path)):
        SketchPipeline.from_pretrained(tmp_path)


def test_a_window_that_cannot_be_is_named_where_the_model_is_loaded(tmp_path):
    tiny_sketch_pipeline().save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    record = json.loads(index.read_text())
    index.write_text(json.dumps(record | {"windows": [{"low": 5.0, "high": 5.0}]}))
    with pytest.raises(ModelError, match=r"an intensity window needs high > low, got \[5.0, 5.0\]"):
        SketchPipeline.from_pretrained(tmp_path)


def test_what_is_not_given_is_the_models():
    pipeline = tiny_sketch_pipeline(t_start=400, num_inference_steps=10, sigma=1.5, solver="dpm++", guidance_um=2.0)
    assert pipeline.painting() == PaintingSettings(
        t_start=400, num_inference_steps=10, sigma=1.5, solver="dpm++", guidance_um=2.0
    )
    assert pipeline.painting(t_start=200).num_inference_steps == 5  # as near to each other as the model's
    assert pipeline.painting(t_start=10).num_inference_steps == 1
    assert pipeline.painting(t_start=200, num_inference_steps=7).num_inference_steps == 7
    assert pipeline.painting(solver="ancestral").num_inference_steps == 400
    assert pipeline.painting(solver="ancestral", t_start=30).num_inference_steps == 30
    assert pipeline.painting(sigma=0.0).sigma == 0
    assert pipeline.painting(guidance_um=0.0).guidance_um == 0


def test_guidance_keeps_the_sketchs_coarse_light():
    pipeline = tiny_sketch_pipeline(trained=False)  # which leaves the noise in the image
    sketch = flat((64, 64), 400.0)
    sketch[20:44, 20:44] = 700
    wanted, errors = pipeline.windows[0].stretch(sketch), []
    for um in (0.0, 2.0):
        call = {"t_start": 300, "num_inference_steps": 3, "sigma": 0, "guidance_um": um, "generator": seeded()}
        made = pipeline(sketches=sketch, **call).images[0]
        errors.append(ndimage.gaussian_filter(pipeline.windows[0].stretch(made) - wanted, 4).std())
    assert errors[1] < 0.5 * errors[0]


WRONG_CALLS = [
    ({}, "give either annotations or sketches"),
    ({"sketches": flat((8, 8)), "annotations": scene()}, "give either annotations or sketches"),
    ({"sketches": flat((3, 8, 8))}, r"a sketch for this model has 2 axes, got one of shape \(3, 8, 8\)"),
    ({"sketches": flat((8, 8), np.nan)}, r"no intensities \(NaN or infinite\)"),
    ({"sketches": flat((8, 8), 50.0)}, r"50 to about 50, do not fit the model's window, 100 to 2000"),
    ({"sketches": flat((8, 8), 9000.0)}, "do not fit the model's window"),
    ({"annotations": scene((8, 24, 24), (1.0, 0.5, 0.5))}, "this model paints 2D annotations, got a 3D one"),
    (
        {"annotations": scene(spacing=(0.6, 0.5))},
        r"voxels of \(0.5, 0.5\) µm, the annotation has \(0.6, 0.5\): resample",
    ),
    ({"sketches": flat((8, 8)), "t_start": 1001}, "t_start must be from 1 to 1000, got 1001"),
    ({"sketches": flat((8, 8)), "t_start": 0}, "t_start must be a whole number from 1, got 0"),
    ({"sketches": flat((8, 8)), "t_start": 5, "num_inference_steps": 6}, "from 1 to t_start, 5, got 6"),
    ({"sketches": flat((8, 8)), "sigma": -0.5}, "sigma must be a number from 0, got -0.5"),
]


@pytest.mark.parametrize(("call", "message"), WRONG_CALLS)
def test_calls_that_cannot_be_are_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        tiny_sketch_pipeline()(**call)
    assert "\n" not in str(caught.value)


def test_a_generator_is_no_number():
    with pytest.raises(TypeError, match=r"generator must be a torch.Generator, got 3"):
        tiny_sketch_pipeline()(sketches=flat((8, 8)), generator=3)


def test_spacings_that_differ_by_rounding_are_the_same():
    tiny_sketch_pipeline().paint(scene(spacing=(0.504, 0.497)), 0, 0, PaintingSettings(**FAST))


def test_a_model_without_sketch_settings_says_so():
    pipeline = tiny_sketch_pipeline(sketch=None)
    with pytest.raises(ValueError, match="does not say how sketches are drawn: give settings, as fit_sketch finds"):
        pipeline(scene())
    own = SketchSettings(brightness=(600.0,), background=(300.0,))
    assert len(pipeline(scene(), settings=own, **FAST).samples) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"windows": [asdict(Window(0, 1)), asdict(Window(0, 1))]}, "2 windows for a network of 1 channels"),
        ({"spacing_um": [1.0, 1.0, 1.0]}, "spacing_um has 3 lengths, the network 2 axes"),
        ({"t_start": 0}, "t_start must be a whole number from 1, got 0"),
        ({"solver": "euler"}, "solver must be one of ancestral, ddim, dpm"),
    ],
)
def test_models_that_cannot_be_are_refused(options, message):
    unet = tiny_sketch_pipeline().unet
    with pytest.raises(ValueError, match=message):
        SketchPipeline(unet, DDPMScheduler(), **options)


def test_a_cell_keeps_the_brightness_that_its_annotation_asks_for():
    pipeline, annotation = tiny_sketch_pipeline(), scene()
    cells = tuple(replace(cell, brightness=700.0 + cell.label) for cell in annotation.cells)
    made = pipeline(replace(annotation, cells=cells), generator=seeded(), **FAST)
    assert [cell.brightness for cell in made.samples[0].cells] == [cell.brightness for cell in cells]
    for cell in cells:
        assert made.sketches[0][annotation.labels == cell.label].mean() == pytest.approx(cell.brightness, rel=0.01)


@pytest.mark.parametrize(
    ("name", "few_steps", "canvas_size", "radius_um", "noise"),
    [
        ("sketch2d", False, (96, 128), (8.0, 11.0), 5.2),
        ("sketch2d", True, (96, 128), (8.0, 11.0), 5.2),
        ("sketch3d", False, (24, 64, 64), (5.0, 7.0), 11.5),
    ],
)
def test_the_embedded_models_paint_what_is_drawn(name, few_steps, canvas_size, radius_um, noise):
    """Nuclei at their places, as bright as they were asked to be, and the noise of their camera, which their teacher
    leaves out in as few steps."""
    pipeline = SketchPipeline.from_pretrained(name, few_steps=few_steps)
    assert pipeline.in_few_steps == few_steps
    pipeline.set_progress_bar_config(disable=True)
    settings = NucleiSettings(
        canvas_size=canvas_size, spacing_um=pipeline.spacing_um, num_cells=(6.0,), radius_um=radius_um
    )
    scene = nuclei(np.random.default_rng(0), settings)
    painted = pipeline(scene, generator=torch.Generator().manual_seed(0))
    sketch, image = painted.sketches[0], painted.images[0]
    found = faithfulness(scene.labels, sketch, image, scene.spacing_um)
    assert found.lost == 0
    assert found.phantoms == 0
    np.testing.assert_allclose(found.shown, found.asked, rtol=0.25)
    empty = ndimage.distance_transform_edt(scene.labels == 0, scene.spacing_um) > 8
    plane = (0,) * (image.ndim - 2) + (2, 2)
    assert (image - ndimage.gaussian_filter(image, plane))[empty].std() == pytest.approx(noise, rel=0.3)


def test_the_embedded_model_of_membranes_paints_walls_as_bright_as_drawn():
    """And the insides, with the noise of its camera."""
    pipeline = SketchPipeline.from_pretrained("membrane3d")
    pipeline.set_progress_bar_config(disable=True)
    settings = TissueSettings(canvas_size=(16, 64, 64), spacing_um=pipeline.spacing_um, diameter_um=(5.0, 6.0))
    scene = tissue(np.random.default_rng(0), settings)
    painted = pipeline(scene, generator=torch.Generator().manual_seed(0))
    sketch, image = painted.sketches[0], painted.images[0].astype(float)
    wall = membranes(scene.labels, scene.spacing_um, pipeline.sketch_settings[0].thickness_um)
    inside = ndimage.distance_transform_edt(~wall, scene.spacing_um) > 1.0
    for where in (wall, inside):
        assert image[where].mean() == pytest.approx(sketch[where].mean(), rel=0.1)
    assert image[wall].mean() > 1.3 * image[inside].mean()
    assert (image - ndimage.gaussian_filter(image, (0, 2, 2)))[inside].std() == pytest.approx(0.9, rel=0.35)
