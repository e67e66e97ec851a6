"""`cascade demo`: a 2D and a 3D data set from the embedded weights, with a picture of each."""

import time
from pathlib import Path

import torch

from cascade import __version__
from cascade.commands.settings import DemoSettings
from cascade.export.preview import sample_preview
from cascade.export.save import check_replaceable, save_samples
from cascade.files import exclusive
from cascade.generation.load import fast_dtype, load
from cascade.hub.embedded import embedded


def demo(settings: DemoSettings) -> None:
    """Generate, save and preview both; prints what was made and what to do next."""
    output_dir = settings.output_dir
    with exclusive(output_dir, "cascade demo"):
        for kind in ("2d", "3d"):
            check_replaceable(output_dir / kind)
        made = _make(output_dir, settings.seed)
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
        shape, count = "×".join(map(str, output.images[0].shape)), len(output.samples[0].cells)
        seconds = time.perf_counter() - start
        made.append(f"  {preview}: {shape} voxels, {count} annotated nuclei, {seconds:.0f} s; data set in {folder}")
    return made
