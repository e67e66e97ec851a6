"""The pipeline of the conditional GAN: tiles, seeds, quality, folders, and mistakes in one line."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_up import tiny_gan_pipeline
from scipy import ndimage
from test_sketch_pipeline import scene, seeded

from cascade.annotation import Annotation
from cascade.evaluation.faithfulness import faithfulness
from cascade.gan.condition import position_of
from cascade.gan.networks import new_discriminator
from cascade.gan.painting import QualitySettings
from cascade.hub.folders import ModelError
from cascade.optics.window import Window
from cascade.pipelines.conditional_gan import ConditionalGANPipeline
from cascade.rng import stream
from cascade.shapes.membranes import membranes
from cascade.simulators.nuclei import NucleiSettings, nuclei
from cascade.simulators.tissue import TissueSettings, tissue
from cascade.sketch.draw import draw_sketch


def organism(size=(96, 96)) -> Annotation:
    """A scene in a disc."""
    y, x = np.ogrid[: size[0], : size[1]]
    disc = (y - 48) ** 2 + (x - 48) ** 2 < 44**2
    return replace(scene(size), foreground=disc)


@pytest.mark.parametrize(("dimensions", "size"), [(2, (37, 70)), (3, (9, 21, 34))])
def test_annotations_of_any_size_are_painted_in_one_call(dimensions, size):
    pipeline = tiny_gan_pipeline(dimensions)
    calls = []
    pipeline.generator.register_forward_pre_hook(lambda module, given: calls.append(given[0].shape))
    annotation = scene(size, pipeline.spacing_um)
    found = pipeline(annotation, generator=seeded())
    assert calls == [(1, 3, *size)]
    assert (found.images[0].shape, found.images[0].dtype) == (size, np.float32)
    sample = found.samples[0]
    assert sample.image.dtype == np.uint16
    assert np.abs(sample.image - found.images[0]).max() <= 0.5
    assert 100 <= found.images[0].min() < found.images[0].max() <= 2000
    np.testing.assert_array_equal(sample.labels, annotation.labels)
    assert all(cell.brightness is not None for cell in sample.cells)  # what the sketch gave them


def test_an_image_depends_on_its_seed_and_number_alone():
    pipeline, scenes = tiny_gan_pipeline(), [scene(seed=n) for n in range(3)]
    together = pipeline(scenes, generator=seeded(4))
    alone = pipeline(scenes[:1], generator=seeded(4))
    one_by_one = pipeline(scenes, generator=seeded(4), micro_batch_size=1)
    np.testing.assert_allclose(together.images[0], alone.images[0], rtol=1e-4)
    for one, other in zip(together.images, one_by_one.images, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)
    sample = alone.samples[0]
    again = pipeline.paint(scenes[0], sample.seed, 0)
    assert again.image.tobytes() == sample.image.tobytes()
    assert [c.brightness for c in again.cells] == [c.brightness for c in sample.cells]
    other = pipeline(scenes[:1], generator=seeded(5)).images[0]
    assert not np.allclose(other, alone.images[0], rtol=1e-3)


def test_what_the_generator_is_told():
    """The sketch, f_pos at the α and β that are asked for, and noise of unit variance."""
    pipeline, annotation = tiny_gan_pipeline(), organism()
    told = []
    pipeline.generator.register_forward_pre_hook(lambda module, given: told.append(given[0][0].numpy().copy()))
    pipeline(annotation, 10.0, 20.0, generator=seeded())
    condition, where, noise = told[0]
    np.testing.assert_allclose(where, position_of(annotation, 10.0, 20.0), atol=1e-6)
    assert condition[annotation.labels > 0].min() > condition[annotation.labels == 0].max()
    assert noise.std() == pytest.approx(1, abs=0.05)
    pipeline(annotation, generator=seeded())
    np.testing.assert_allclose(told[1][1], position_of(annotation, 100.0, 100.0), atol=1e-6)


def test_the_paper_tells_it_no_noise():
    pipeline = tiny_gan_pipeline(noise=False, condition="binary")
    one, other = (pipeline(scene(), generator=seeded(n)).images[0] for n in (0, 1))
    np.testing.assert_array_equal(one, other)
    assert pipeline.generator.config.in_channels == 2


@pytest.mark.parametrize("crop", [0, 4])
@pytest.mark.parametrize(("dimensions", "size", "tile"), [(2, (70, 90), (48, 48)), (3, (24, 44, 60), (24, 48, 48))])
def test_tiles_leave_no_seam(dimensions, size, tile, crop):
    pipeline, annotation = tiny_gan_pipeline(dimensions), scene(size, (1.0, 0.5, 0.5)[-dimensions:])
    whole = pipeline(annotation, generator=seeded()).images[0]
    tiled = pipeline(annotation, generator=seeded(), tile_size=tile, tile_crop=crop).images[0]
    assert pipeline.generator.reach == 12
    assert 0 < np.abs(tiled - whole).max() < 0.02 * np.ptp(whole)
    assert np.abs(tiled - whole).mean() < 0.0005 * np.ptp(whole)


@pytest.mark.parametrize("options", [{}, {"dimensions": 3, "position": False}])
def test_it_comes_back_from_a_folder_of_safetensors(options, tmp_path):
    pipeline = tiny_gan_pipeline(**options)
    pipeline.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    back = ConditionalGANPipeline.from_pretrained(tmp_path)
    assert (back.window, back.spacing_um) == (pipeline.window, pipeline.spacing_um)
    assert back.sketch_settings == pipeline.sketch_settings
    annotation = scene((8, 16, 24)[-len(pipeline.spacing_um) :], pipeline.spacing_um)
    one, other = (p(annotation, generator=seeded()).images[0] for p in (pipeline, back))
    np.testing.assert_allclose(one, other, rtol=1e-4)


@pytest.mark.parametrize("missing", ["generator/diffusion_pytorch_model.safetensors", "generator/config.json"])
def test_a_folder_with_something_missing_is_named(missing, tmp_path):
    tiny_gan_pipeline().save_pretrained(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(ModelError, match=str(tmp_path)):
        ConditionalGANPipeline.from_pretrained(tmp_path)


def test_networks_of_different_dimensions_in_one_folder_are_named(tmp_path):
    tiny_gan_pipeline().save_pretrained(tmp_path)
    new_discriminator(2, True, {"block_out_channels": [4]}).save_pretrained(tmp_path / "discriminator")
    ConditionalGANPipeline.from_pretrained(tmp_path)
    new_discriminator(3, True, {"block_out_channels": [4]}).save_pretrained(tmp_path / "discriminator")
    with pytest.raises(ModelError, match="a discriminator of 3D images beside a 2D generator"):
        ConditionalGANPipeline.from_pretrained(tmp_path)


def test_a_repository_is_looked_up_once(tmp_path, monkeypatch):
    tiny_gan_pipeline().save_pretrained(tmp_path)
    asked = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **how: asked.append(how) or str(tmp_path))
    ConditionalGANPipeline.from_pretrained("someone/gan", "v2", token="secret")
    assert [(how["revision"], how["token"]) for how in asked] == [("v2", "secret")]


def test_a_window_that_cannot_be_is_named_where_the_model_is_loaded(tmp_path):
    tiny_gan_pipeline().save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"window": {"low": 5.0, "high": 5.0}}))
    with pytest.raises(ModelError, match=r"an intensity window needs high > low, got \[5.0, 5.0\]"):
        ConditionalGANPipeline.from_pretrained(tmp_path)


FULL = Annotation.of_labels(np.ones((16, 16), np.uint16), (0.5, 0.5))
WRONG_CALLS = [
    ({"annotations": scene((8, 24, 24), (1.0, 0.5, 0.5))}, "this model paints 2D annotations, got a 3D one"),
    ({"annotations": scene(spacing=(0.6, 0.5))}, r"the annotation has \(0.6, 0.5\): resample"),
    ({"annotations": scene(), "alpha": 0.0}, "alpha must be a number above 0, got 0"),
    ({"annotations": scene(), "beta": -3.0}, "beta must be a number above 0, got -3"),
    ({"annotations": FULL, "alpha": 10.0}, "this annotation has no outside"),
    ({"annotations": replace(FULL, labels=0 * FULL.labels, cells=()), "alpha": 10.0}, "has no foreground"),
    ({"annotations": scene(), "tile_size": (33, 33)}, "multiples of 2 for this network"),
    ({"annotations": scene(), "tile_size": (8, 8, 8)}, "tile_size has 3 sides, the images have 2"),
    ({"annotations": scene(), "tile_size": (8, 8), "tile_overlap": 8}, "must be larger than their overlap"),
    ({"annotations": scene(), "tile_crop": -1}, "tile_crop must be a whole number from 0"),
]


@pytest.mark.parametrize(("call", "message"), WRONG_CALLS)
def test_calls_that_cannot_be_are_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        tiny_gan_pipeline()(**call)
    assert "\n" not in str(caught.value)


def test_a_model_that_is_told_no_position_has_no_quality():
    with pytest.raises(ValueError, match="this model is not told where voxels lie: alpha and beta mean nothing to it"):
        tiny_gan_pipeline(position=False)(scene(), alpha=10.0)
    with pytest.raises(TypeError, match=r"generator must be a torch.Generator, got 3"):
        tiny_gan_pipeline()(scene(), generator=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spacing_um": [1.0, 1.0, 1.0]}, "spacing_um has 3 lengths, the generator 2 axes"),
        ({"noise": False}, "a generator of 3 channels, which is told 2 of them"),
        ({"condition": "words"}, "condition must be binary or sketch, got 'words'"),
        ({"alpha": -1.0}, "alpha must be a number above 0, got -1"),
    ],
)
def test_models_that_cannot_be_are_refused(options, message):
    generator = tiny_gan_pipeline().generator
    with pytest.raises(ValueError, match=message):
        ConditionalGANPipeline(generator, **options)


def test_a_generator_that_fades_with_depth_shows_worse_images_at_a_smaller_alpha():
    """α says how soon a voxel counts as deep: of a generator that gives light 1 − f_pos, α = 10 leaves less of it."""
    pipeline = tiny_gan_pipeline(window={"low": 0.0, "high": 1000.0, "gamma": 1.0})

    def fading(part: torch.Tensor) -> torch.Tensor:
        return 1 - 2 * part[:, 1:2].clamp(0, 1)

    pipeline._predict = fading
    annotation, light = organism(), []
    for alpha in (10.0, 50.0, 100.0, 500.0, 1000.0):
        image = pipeline(annotation, alpha=alpha).images[0]
        light.append(image[ndimage.binary_erosion(annotation.labels > 0)].mean())
    assert np.all(np.diff(light) > 0)
    assert light[0] < 0.8 * light[-1]


def test_defaults_are_the_models():
    pipeline = tiny_gan_pipeline()
    assert pipeline.painting() == QualitySettings()
    assert pipeline.window == Window(100.0, 2000.0)
    pipeline.check(scene(spacing=(0.504, 0.497)))  # rounding


def test_the_embedded_model_of_nuclei_paints_what_is_drawn():
    """Nuclei at their places, with the noise of their camera (as sketch3d's), which is no pattern."""
    pipeline = ConditionalGANPipeline.from_pretrained("nuclei3d-gan")
    pipeline.set_progress_bar_config(disable=True)
    settings = NucleiSettings(
        canvas_size=(24, 64, 64), spacing_um=pipeline.spacing_um, num_cells=(6.0,), radius_um=(5.0, 7.0)
    )
    drawn = nuclei(np.random.default_rng(0), settings)
    image, other = (pipeline(drawn, generator=seeded(n)).images[0] for n in (0, 1))
    sketch = draw_sketch(drawn, pipeline.sketch_settings, stream(0, "x"))
    found = faithfulness(drawn.labels, sketch, image, drawn.spacing_um)
    assert (found.lost, found.phantoms) == (0, 0)
    empty = ndimage.distance_transform_edt(drawn.labels == 0, drawn.spacing_um) > 8
    assert (image - ndimage.gaussian_filter(image, (0, 2, 2)))[empty].std() == pytest.approx(11.5, rel=0.3)
    assert np.corrcoef(image[empty], other[empty])[0, 1] < 0.3
    assert regularity(image, empty) < 0.1


def test_the_embedded_model_of_membranes_paints_walls():
    pipeline = ConditionalGANPipeline.from_pretrained("membrane3d-gan")
    pipeline.set_progress_bar_config(disable=True)
    settings = TissueSettings(canvas_size=(16, 64, 64), spacing_um=pipeline.spacing_um, diameter_um=(5.0, 6.0))
    drawn = tissue(np.random.default_rng(0), settings)
    image = pipeline(drawn, generator=seeded()).images[0].astype(float)
    wall = membranes(drawn.labels, drawn.spacing_um, pipeline.sketch_settings.thickness_um)
    inside = ndimage.distance_transform_edt(~wall, drawn.spacing_um) > 1.0
    assert image[wall].mean() > 1.3 * image[inside].mean()
    assert (image - ndimage.gaussian_filter(image, (0, 2, 2)))[inside].std() == pytest.approx(0.9, rel=0.35)
    assert regularity(image, inside) < 0.1


def regularity(image, where):
    """How far every other pixel differs, over the spread: of noise next to nothing, of a pattern up to one."""
    y, x = np.indices(image.shape[1:])
    rest = np.where(where, image - ndimage.gaussian_filter(image, (0, 2, 2)), 0)
    signs = [(-1.0) ** y, (-1.0) ** x, (-1.0) ** (x + y)]
    return max(abs((rest * sign).sum() / where.sum()) for sign in signs) / rest[where].std()
