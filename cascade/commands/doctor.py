"""`cascade doctor`: versions, extras, device and embedded weights of this installation."""

import platform
from importlib import metadata, util

import torch

from cascade import __version__
from cascade.extras import EXTRAS, install
from cascade.hub.embedded import NAMES, embedded
from cascade.vendor import READERS

_CORE = ("torch", "diffusers", "accelerate", "datasets", "numpy", "scikit-image", "tifffile", "imagecodecs", "zarr")
_FOR = {
    "app": "the page in the browser",
    "bioio": "images in microscopes' own formats",
    "cellpose": "evaluate, and fit with --test",
    "imagej": "outlines drawn in ImageJ",
    "slurm": "generate --slurm",
    "tensorboard": "curves of trainings",
    "transformers": "going on from a Stable Diffusion",
    "viewer": "looking at meshes, and checking them",
}


def doctor() -> None:
    """Print what is installed and what works; nothing heavy is imported but torch."""
    print(f"cascade-microscopy {__version__}, Python {platform.python_version()}")
    for name in _CORE:
        print(f"  {name} {_version(name) or 'missing: pip install ' + name}")
    for extra, module in EXTRAS.items():
        there = _version(module) if util.find_spec(module) else None
        print(
            f"  {module} {there or 'missing'} (extra {extra}: {_FOR[extra]})" + ("" if there else f": {install(extra)}")
        )
    if util.find_spec("bioio"):
        for ending, package in READERS.items():
            print(f"  {package} {_version(package) or 'missing: pip install ' + package} (for {ending})")
    if util.find_spec("torchvision"):
        print("  torchvision is installed: if diffusers fails to import, 'pip uninstall torchvision'")
    device = f"cuda, {torch.cuda.get_device_name()}" if torch.cuda.is_available() else "cpu"
    print(f"  device: {device}, {torch.get_num_threads()} threads")
    for name in NAMES:
        try:
            print(f"  {name}: {embedded(name)}")
        except FileNotFoundError as error:
            print(f"  {name}: {error}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
