"""Statistics, a bank of cells and annotated images that are made up, for more than one test file."""

from dataclasses import asdict

import numpy as np
import torch
from conftest import ellipse, field_of_view
from diffusers import DDPMScheduler
from scipy import ndimage

from cascade.annotation import CellRecord
from cascade.diffusion.pixel_shuffle_unet import PixelShuffleUNet
from cascade.evaluation.labelled import LabelledImage
from cascade.gan.networks import new_generator
from cascade.optics.axial import Axial
from cascade.optics.background import Background
from cascade.optics.halo import Halo
from cascade.optics.noise import Noise
from cascade.optics.statistics import Statistics
from cascade.optics.window import Window
from cascade.pipelines.conditional_gan import ConditionalGANPipeline
from cascade.pipelines.sketch_ddpm import SketchPipeline
from cascade.population.compositing import Cell
from cascade.sketch.channels import record_of
from cascade.sketch.settings import SketchSettings

HALO = Halo([0.3, 0.15, 0.05])


def statistics(**changes) -> Statistics:
    """Of planes with one cell's size and light."""
    options = dict(
        source="made up", licence="none", spacing_um=(0.5, 0.5), image_shape=(256, 256), dtype="uint16",
        window=Window(0, 2000), background=Background([100.0], 0.0, 40.0, 0.0, 3.0),
        noise=Noise(60.0, 4.0, 0.5, [[1.0]]), halo=HALO, axial=None, cells_per_image=[12], region_um=None,
        clustering_probability=0.3, cell_area_um2=[60.0], cell_brightness=[700.0], cell_image=[0],
    )  # fmt: skip
    return Statistics(**(options | changes))


def small_statistics(ndim: int) -> Statistics:
    """Of planes or stacks without noise, on a background that varies."""
    return statistics(
        spacing_um=(2.0, 0.5, 0.5)[-ndim:], image_shape=(8, 64, 64)[-ndim:], window=Window(0, 1000),
        background=Background([100.0], 4.0, 20.0, 1.0, 3.0), noise=Noise(0.0, 0.0, 0.0, [[1.0]]), halo=Halo([0.2]),
        axial=Axial(
            (1.5, 0.1), [0.0, 1.0], [1.0, 0.5], glow=0.2, glow_um=4.0, haze=0.5, haze_um=(20.0, 2.0), haze_slope=0.3
        ) if ndim == 3 else None,
        cells_per_image=[5], clustering_probability=0.5, cell_area_um2=[1.0], cell_brightness=[500.0],
    )  # fmt: skip


def bank(ndim: int) -> list[Cell]:
    """Cells with blurred edges: where they are pressed together, gaps close across the tiles' borders."""
    cells = []
    for n in range(5):
        mask = np.pad(ellipse((21, 27), (9, 14), (5 + n, 9 - n), 0.3 * n), 4)
        mask = mask if ndim == 2 else np.stack([mask] * 3)
        light = ndimage.gaussian_filter(100.0 * (n + 1) * mask.astype(np.float32), (0, 2, 2)[-ndim:])
        cells.append(Cell(mask, light, (1.0, 13.0, 18.0)[-ndim:], CellRecord(brightness=300.0)))
    return cells


def labelled_images(seed: int, count: int = 3) -> list[LabelledImage]:
    """Planes with eight cells each."""
    rng = np.random.default_rng(seed)
    return [LabelledImage(*field_of_view(rng, (128, 128), 8), (0.5, 0.5)) for _ in range(count)]


def tiny_sketch_pipeline(dimensions: int = 2, channels: int = 1, *, trained: bool = True, **options) -> SketchPipeline:
    """A DDPM from sketches with random weights, which predicts noise that is not there; untrained: none."""
    torch.manual_seed(0)
    unet = PixelShuffleUNet(
        dimensions=dimensions, in_channels=channels, out_channels=channels, block_out_channels=(4, 8)
    ).eval()
    if trained:
        with torch.no_grad():
            unet.last.weight.normal_(0, 0.1)
    each = [SketchSettings(brightness=(400.0, 900.0), background=(300.0 + 100 * n,)) for n in range(channels)]
    sketch = record_of(each)
    given = dict(
        spacing_um=[1.0, 0.5, 0.5][-dimensions:], windows=[asdict(Window(100.0, 2000.0))] * channels, sketch=sketch,
        t_start=60, num_inference_steps=3,
    )  # fmt: skip
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    pipeline = SketchPipeline(unet, scheduler, **(given | options))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_gan_pipeline(dimensions: int = 2, **options) -> ConditionalGANPipeline:
    """A conditional GAN with random weights, of cells' sketches, told where they lie and given noise."""
    torch.manual_seed(0)
    told = {"position": True, "noise": True} | options
    generator = new_generator(dimensions, told["position"], told["noise"], {"block_out_channels": (4, 8)}).eval()
    with torch.no_grad():
        generator.last.weight.normal_(0, 0.1)
        generator.last.weight[0].neg_()  # these weights make light of what is dark
    given = dict(
        spacing_um=[1.0, 0.5, 0.5][-dimensions:], window=asdict(Window(100.0, 2000.0)), condition="sketch",
        sketch=SketchSettings(brightness=(400.0, 900.0), background=(300.0,)).record(),
    )  # fmt: skip
    pipeline = ConditionalGANPipeline(generator, **(given | options))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
