"""Any source of annotations with any painter: a toy of each, through shards, resume, formats and the evaluation."""

import json

import numpy as np
import pytest

from cascade import CascadePipeline, CascadeSettings
from cascade.annotation import Annotation, Sample
from cascade.evaluation.distribution import patches
from cascade.evaluation.population import field_statistics
from cascade.evaluation.sources import Source
from cascade.export.annotations import annotation_path, load_annotation
from cascade.generation import shards
from cascade.generation.painting import painted
from cascade.optics.window import Window
from cascade.rng import stream


def discs(seed: int, index: int) -> Annotation:
    """A source: discs of radius 6 on a grid, each at its place with probability 0.7."""
    labels = np.zeros((96, 96), np.uint16)
    y, x = np.ogrid[:96, :96]
    for n, there in enumerate(stream(seed, "discs", index).random(16) < 0.7):
        centre = 12 + 24 * np.array(divmod(n, 4))
        if there:
            labels[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= 36] = labels.max() + 1
    return Annotation.of_labels(labels, (0.5, 0.5))


def flat(annotation: Annotation, seed: int, index: int) -> Sample:
    """A painter: every cell at its mean brightness, on a noisy background."""
    rng = stream(seed, "flat", index)
    light = np.append(100.0, rng.uniform(300, 900, len(annotation.cells)))
    image = rng.poisson(light[annotation.labels]).astype(np.uint16)
    return Sample(image, annotation, seed, index)


JOB = shards.Job(
    model="toy", model_sha256="", version="1", seed=5, num_images=5, shard_size=2,
    formats=("ctc", "cellpose", "annotations"), frames_per_sequence=400, meshes=False, settings={},
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "set"
    shards.start(folder, JOB)
    assert shards.run(folder, JOB, painted(discs, flat))
    return folder


def test_a_new_painter_makes_data_sets(whole):
    lines = (whole / "provenance.jsonl").read_text().splitlines()
    counts = [json.loads(line)["cells"] for line in lines]
    assert counts == [len(discs(5, index).cells) for index in range(5)]
    for number in range(5):
        back = load_annotation(annotation_path(whole / "annotations", number))
        np.testing.assert_array_equal(back.labels, discs(5, number).labels)
        assert [cell.row(2) for cell in back.cells] == [cell.row(2) for cell in discs(5, number).cells]


def test_it_is_resumed_to_the_same_bytes(whole, tmp_path):
    def cut_off(seed, numbers):
        for number in numbers:
            if number == 3:
                raise KeyboardInterrupt
            yield from painted(discs, flat)(seed, [number])

    shards.start(tmp_path / "set", JOB)
    with pytest.raises(KeyboardInterrupt):
        shards.run(tmp_path / "set", JOB, cut_off)
    assert shards.progress(tmp_path / "set", JOB) == (1, 3)
    assert shards.run(tmp_path / "set", JOB, painted(discs, flat))
    for path in (p for p in whole.rglob("*") if p.is_file() and ".cascade" not in p.parts):
        assert path.read_bytes() == (tmp_path / "set" / path.relative_to(whole)).read_bytes(), path


def test_it_is_judged_like_any_other(whole):
    images = Source(whole / "ctc").load()
    assert len(images) == 5
    found = field_statistics(
        [one.image for one in images], [one.labels for one in images], [(0.5, 0.5)] * len(images), 20.0
    )
    assert found.cells_per_image.tolist() == [len(discs(5, index).cells) for index in range(5)]
    assert found.background_level.mean() == pytest.approx(100, abs=2)
    assert patches(images, Window(0.0, 1000.0), 32).shape[1:] == (32, 32)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_texture_stage_paints_annotations_that_it_did_not_make(ndim):
    """Light lies where the labels are, as bright as the records say; labels and seed are the sample's own."""
    pipeline = CascadePipeline.from_pretrained(f"nuclei{ndim}d")
    pipeline.set_progress_bar_config(disable=True)
    spacing = pipeline.statistics.spacing_um
    annotation = balls(ndim, spacing, radius_um=6.0 if ndim == 2 else 5.0)
    level = pipeline.statistics.background.level
    wanted = [level + 300.0, level + 600.0]
    annotation = with_brightness(annotation, wanted)
    settings = CascadeSettings(num_inference_steps=8)
    sample = pipeline.paint(annotation, 3, settings=settings)
    assert sample.labels is annotation.labels
    assert pipeline.paint(annotation, 3, settings=settings).image.tobytes() == sample.image.tobytes()
    assert pipeline.paint(annotation, 4, settings=settings).image.tobytes() != sample.image.tobytes()
    outside = float(np.median(sample.image[annotation.labels == 0]))
    inside = [float(sample.image[annotation.labels == cell.label].mean()) - outside for cell in sample.cells]
    assert inside[1] > 1.4 * inside[0] > 0
    assert inside[0] == pytest.approx(300, rel=0.35)
    assert all(cell.alignment is not None for cell in sample.cells)


def balls(ndim: int, spacing: tuple[float, ...], radius_um: float) -> Annotation:
    """Two balls far from each other."""
    shape = (64, 128) if ndim == 2 else (24, 48, 96)
    places = np.stack(np.meshgrid(*[np.arange(n) * s for n, s in zip(shape, spacing, strict=True)], indexing="ij"), -1)
    extent = np.array(shape) * spacing
    labels = np.zeros(shape, np.uint16)
    for label, share in ((1, 0.25), (2, 0.75)):
        centre = [*(0.5 * extent[:-1]), share * extent[-1]]
        labels[((places - centre) ** 2).sum(-1) <= radius_um**2] = label
    return Annotation.of_labels(labels, spacing)


def with_brightness(annotation: Annotation, values: list[float]) -> Annotation:
    from dataclasses import replace

    cells = tuple(replace(cell, brightness=value) for cell, value in zip(annotation.cells, values, strict=True))
    return replace(annotation, cells=cells)


def test_annotations_that_a_model_cannot_paint_are_refused():
    pipeline = CascadePipeline.from_pretrained("nuclei2d")
    with pytest.raises(ValueError, match="paints 2D annotations, got a 3D one"):
        pipeline.paint(balls(3, (1.0, 1.0, 1.0), 4.0), 0)
    with pytest.raises(ValueError, match="resample its labels"):
        pipeline.paint(balls(2, (1.0, 1.0), 4.0), 0)
    spacing = pipeline.statistics.spacing_um
    with pytest.raises(ValueError, match=r"cell 1 is .* µm wide, and this model paints crops of"):
        pipeline.paint(balls(2, spacing, 20.0), 0)
