"""Small models with random weights, and small made-up data, for tests that must run anywhere."""

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # chosen: no test warns, or not, by what else the machine does


def pytest_configure(config):
    beside_others = hasattr(config, "workerinput")  # one of several processes of pytest-xdist
    torch.set_num_threads(1 if beside_others else min(torch.get_num_threads(), 2))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real microscopy data that CASCADE_DATA names; tests that need it are skipped without."""
    fallback = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CASCADE_DATA", fallback))
    if not (folder / "BBBC039").is_dir():
        pytest.skip("no real data: set CASCADE_DATA to the folder with BBBC039 and BBBC050")
    return folder


def ellipse(shape, centre, axes, angle=0.0) -> np.ndarray:
    """A filled ellipse, bool."""
    y, x = np.indices(shape)
    dy, dx = y - centre[0], x - centre[1]
    v = dy * np.cos(angle) - dx * np.sin(angle)
    u = dy * np.sin(angle) + dx * np.cos(angle)
    return (v / axes[0]) ** 2 + (u / axes[1]) ** 2 <= 1


def field_of_view(rng: np.random.Generator, shape=(160, 160), count=12) -> tuple[np.ndarray, np.ndarray]:
    """A made-up micrograph of separate bright ellipses on a noisy background: image uint16, labels uint16."""
    from scipy import ndimage

    labels = np.zeros(shape, np.uint16)
    light = np.zeros(shape)
    for _ in range(40 * count):
        if labels.max() == count:
            break
        axes = rng.uniform(6, 11, 2)
        cell = ellipse(shape, rng.uniform(0, shape), axes, rng.uniform(0, np.pi))
        if cell.sum() > 60 and not (ndimage.binary_dilation(cell, iterations=4) & (labels > 0)).any():
            labels[cell] = labels.max() + 1
            light += cell * rng.uniform(300, 900)
    image = 120 + ndimage.gaussian_filter(light, 1.0)
    image = rng.poisson(image) + rng.normal(0, 4, shape)
    return np.clip(image, 0, 65535).astype(np.uint16), labels


def write_ctc_2d(folder: Path, frames: int = 3, seed: int = 0) -> Path:
    """A Cell Tracking Challenge data set of made-up planes."""
    rng = np.random.default_rng(seed)
    (folder / "01").mkdir(parents=True)
    (folder / "01_GT" / "SEG").mkdir(parents=True)
    for n in range(frames):
        image, labels = field_of_view(rng)
        tifffile.imwrite(folder / "01" / f"t{n:03d}.tif", image)
        tifffile.imwrite(folder / "01_GT" / "SEG" / f"man_seg{n:03d}.tif", labels)
    return folder


@pytest.fixture(scope="session")
def ctc_2d(tmp_path_factory) -> Path:
    return write_ctc_2d(tmp_path_factory.mktemp("data") / "Planes")


def ball_stack(rng: np.random.Generator, shape=(24, 96, 96), count=8) -> tuple[np.ndarray, np.ndarray]:
    """A made-up stack of ellipsoids twice as tall as wide at spacing (2, 1, 1) µm: radius 7 µm, height 28 µm."""
    from scipy import ndimage

    labels = np.zeros(shape, np.uint16)
    light = np.zeros(shape)
    z, y, x = np.indices(shape)
    for _ in range(60 * count):
        if labels.max() == count:
            break
        centre = rng.uniform((8, 10, 10), (shape[0] - 8, shape[1] - 10, shape[2] - 10))
        radius = rng.uniform(6.5, 7.5)
        inside = ((z - centre[0]) * 2 / (2 * radius)) ** 2 + ((y - centre[1]) / radius) ** 2
        inside = inside + ((x - centre[2]) / radius) ** 2 <= 1
        if not (ndimage.binary_dilation(inside, iterations=3) & (labels > 0)).any():
            labels[inside] = labels.max() + 1
            light += inside * rng.uniform(400, 700)
    light = ndimage.gaussian_filter(light, (1.0, 0.7, 0.7))
    return (rng.poisson(100 + light) + rng.normal(0, 3, shape)).clip(0).astype(np.uint16), labels


def glass_stack(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """A made-up stack of five slices at spacing (1, 0.5, 0.5) µm: four flat cells, 14 µm wide and 7 µm high, whose
    middles, the last that is returned, lie in the first slice or the second, so that most of them are cut."""
    from scipy import ndimage

    z, y, x = np.indices((5, 120, 120)) * np.reshape((1.0, 0.5, 0.5), (3, 1, 1, 1))
    light, labels, middles = np.full(z.shape, 100.0), np.zeros(z.shape, np.uint16), []
    for n, (cy, cx) in enumerate([(15, 15), (15, 45), (45, 15), (45, 45)]):
        middles.append(float(rng.integers(2)))
        up = ((z - middles[-1]) / 3.5) ** 2
        inside = up + ((y - cy) / 7) ** 2 + ((x - cx) / 7) ** 2 <= 1
        labels[inside], light[inside] = n + 1, 100 + 500 * (1 - up[inside])
    image = ndimage.gaussian_filter(light, (0.5, 1, 1)) + rng.normal(0, 5, light.shape)
    return np.rint(image).astype(np.uint16), labels, middles


@pytest.fixture(scope="session")
def ctc_sparse_3d(tmp_path_factory) -> Path:
    """Stacks of which one slice each is annotated."""
    folder = tmp_path_factory.mktemp("data") / "Stacks"
    (folder / "01").mkdir(parents=True)
    (folder / "01_GT" / "SEG").mkdir(parents=True)
    rng = np.random.default_rng(1)
    for n in range(6):
        image, labels = ball_stack(rng)
        z = int(rng.integers(6, 18))
        tifffile.imwrite(folder / "01" / f"t{n:03d}.tif", image)
        tifffile.imwrite(folder / "01_GT" / "SEG" / f"man_seg_{n:03d}_{z:03d}.tif", labels[z])
    return folder


def tiny_texture(pixel_size_um: float = 1.0):
    """A texture pipeline with random weights: 32² crops, 16² latents."""
    from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel

    from cascade.diffusion.prompt import EmptyPrompt
    from cascade.diffusion.sampling import make_scheduler
    from cascade.pipelines.texture import TexturePipeline

    torch.manual_seed(0)
    vae = AutoencoderKL(
        in_channels=1,
        out_channels=1,
        latent_channels=4,
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        sample_size=32,
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=4,
    )
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 8), conditioning_channels=3)
    window = {"low": 80.0, "high": 1200.0, "gamma": 0.5}
    return TexturePipeline(vae, unet, controlnet, make_scheduler(), EmptyPrompt(1, 8), pixel_size_um, window)


@pytest.fixture
def texture():
    return tiny_texture()


@pytest.fixture(scope="session")
def tiny_crops(tmp_path_factory) -> Path:
    """Crops of 32² pixels of a made-up data set."""
    from cascade.data.prepare import prepare
    from cascade.data.settings import PrepareSettings

    folder = tmp_path_factory.mktemp("crops")
    settings = PrepareSettings(
        write_ctc_2d(folder / "data"), output_dir=folder / "crops", crop_size=32, spacing_um=(1, 1)
    )
    return prepare(settings)


@pytest.fixture(scope="session")
def tiny_base(tiny_crops, tmp_path_factory) -> Path:
    """The foundation of a few steps that the texture stage goes on from."""
    from toy_training import run_script

    from cascade.training import train_ldm

    folder = tmp_path_factory.mktemp("base")
    run_script(train_ldm, "tiny_ldm", "--data", tiny_crops, "--output_dir", folder)
    return folder
