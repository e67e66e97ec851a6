"""The bytes of small data sets of the embedded models: a change of the code that is meant to change no result leaves
them as they are. They are of statistics fitted anew, and computed in float32 wherever it is tested.

Floating point differs between processors and libraries, so the hashes hold for one kind of machine; elsewhere a network
of another library gives other bits for the same input, and the tests are skipped.
"""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
import zarr
from diffusers import UNet2DModel

from cascade import embedded
from cascade.commands.cli import main

MACHINE = "31310e4b9b8164933c99e661"
PLANES = ["--model", "nuclei2d", "--canvas_size", "96", "112", "--cells_per_image", "4"]
STACKS = ["--model", "nuclei3d", "--canvas_size", "20", "64", "64", "--cells_per_image", "2"]
COMMON = ["--num_inference_steps", "2", "--min_alignment", "0", "--seed", "11", "--dtype", "float32"]
SETS = {
    "planes": [*PLANES, "--num_images", "2"],
    "planes of a bank": [*PLANES, "--num_images", "2", "--bank", "3"],
    "planes of tiles": [*PLANES, "--bank", "3", "--tiles"],
    "stacks": STACKS,
    "stacks of sections": [*STACKS, "--reading", "section", "--correlation_length_um", "4"],
    "stacks of harmonics": [*STACKS, "--shapes", "harmonics", "--max_overlap", "0.1", "--bank", "2"],
}
HASHES = {
    "planes": "4cc222c6d9ceb81a888b4bb5",
    "planes of a bank": "25fc62ba54fcb572040b1174",
    "planes of tiles": "b52b0182507b44f0368227a3",
    "stacks": "297dae79b51fdd873941554f",
    "stacks of sections": "5b1afd1a7a7463269511cf3f",
    "stacks of harmonics": "4baa3802b870d1b330254189",
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums over several threads may come out in any order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def of_machine() -> str:
    """What this machine makes of a fixed input with a fixed network, none of it this package's code."""
    unet = UNet2DModel.from_pretrained(embedded("nuclei3d") / "mask" / "unet", use_safetensors=True)
    noise = np.random.default_rng(0).standard_normal((4, 1, 32, 32), np.float32)
    with torch.inference_mode():
        return digest([unet(torch.from_numpy(noise), 500).sample.numpy()])


def digest(arrays: list[np.ndarray]) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:24]


def contents(folder: Path) -> list[np.ndarray]:
    """Images and labels of a data set, in order."""
    files = [*sorted(folder.glob("0?/*.tif")), *sorted(folder.glob("0?_GT/SEG/*.tif"))]
    groups = [zarr.open_group(path, mode="r") for path in sorted(folder.glob("*.zarr"))]
    return [*map(tifffile.imread, files), *(group[name][:] for group in groups for name in ("0", "labels/cells/0"))]


@pytest.mark.parametrize("name", SETS)
def test_the_bytes_are_those_of_before(name, tmp_path):
    if of_machine() != MACHINE:
        pytest.skip("another processor, or other libraries: networks give other bits here")
    assert main(["generate", *SETS[name], *COMMON, "--output_dir", str(tmp_path / "set")]) == 0
    assert digest(contents(tmp_path / "set")) == HASHES[name]
