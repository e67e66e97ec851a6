"""`cascade demo`: data sets of cells, and a scene from its sketch, by the embedded weights, with pictures."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cascade import __version__
from cascade.annotation import Annotation, Sample
from cascade.commands.settings import DemoSettings
from cascade.export.preview import sample_preview
from cascade.export.save import check_replaceable, save_samples
from cascade.files import exclusive
from cascade.generation.load import fast_dtype, load
from cascade.hub.embedded import embedded
from cascade.optics.camera import digitise
from cascade.pipelines.sketch_ddpm import SketchPipeline
from cascade.rng import stream
from cascade.simulators.nuclei import NucleiSettings, nuclei

_SCENE = NucleiSettings(
    canvas_size=(320, 320), num_cells=(40.0,), radius_um=(8.0, 11.5), elongation=(1.05, 1.7), deformation=(0.06,),
    touching=(0.3,), clustering=(0.3,),
)  # fmt: skip


def demo(settings: DemoSettings) -> None:
    """Generate, save and preview all; prints what was made and what to do next."""
    output_dir = settings.output_dir
    with exclusive(output_dir, "cascade demo"):
        for kind in ("2d", "3d", "sketch"):
            check_replaceable(output_dir / kind)
        made = [*_make(output_dir, settings.seed), _paint(output_dir, settings.seed)]
    print("Made from the embedded weights:\n" + "\n".join(made))
    print("Next: cascade prepare YOUR_DATA --output_dir crops   (see README.md)")


def _make(output_dir: Path, seed: int) -> list[str]:
    made = []
    for name, kind, canvas, cells in (
        ("nuclei2d", "2d", (512, 512), 60),
        ("nuclei3d", "3d", (48, 160, 160), 14),
    ):
        start = time.perf_counter()
        pipeline = load(embedded(name), dtype=fast_dtype(None))
        generator = torch.Generator().manual_seed(seed)
        output = pipeline(canvas_size=canvas, cells_per_image=cells, generator=generator)
        about = {"made_by": f"cascade-microscopy {__version__}", "model": name, "seed": seed}
        folder = save_samples(output.samples, output_dir / kind, about=about)
        preview = output_dir / f"preview_{kind}.png"
        sample_preview(output.samples[0], preview)
        size, count = output.images[0].shape, len(output.samples[0].cells)
        shape = f"{'×'.join(map(str, size))} {'voxels' if len(size) == 3 else 'pixels'}"
        seconds = time.perf_counter() - start
        made.append(f"  {preview}: {shape}, {count} annotated nuclei, {seconds:.0f} s; data set in {folder}")
    return made


def _paint(output_dir: Path, seed: int) -> str:
    """A simulated scene, its sketch and its image, side by side."""
    start = time.perf_counter()
    pipeline = SketchPipeline.from_pretrained(embedded("sketch2d"))
    scene = nuclei(stream(seed, "demo"), replace(_SCENE, spacing_um=pipeline.spacing_um))
    painted = pipeline(scene, generator=torch.Generator().manual_seed(seed))
    about = {"made_by": f"cascade-microscopy {__version__}", "model": "sketch2d", "seed": seed}
    folder = save_samples(painted.samples, output_dir / "sketch", about=about)
    preview = output_dir / "preview_sketch.png"
    both = np.concatenate([digitise(one[0], pipeline.config.dtype) for one in (painted.sketches, painted.images)], 1)
    labels = np.concatenate([np.zeros_like(scene.labels), scene.labels], 1)
    sample_preview(Sample(both, Annotation.of_labels(labels, scene.spacing_um)), preview)
    shape, seconds = "×".join(map(str, scene.labels.shape)), time.perf_counter() - start
    return (
        f"  {preview}: {shape} pixels, {len(scene.cells)} nuclei from a sketch, {seconds:.0f} s; data set in {folder}"
    )
