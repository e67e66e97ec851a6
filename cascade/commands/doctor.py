"""`cascade doctor`: versions, extras, device and embedded weights of this installation."""

from importlib import metadata, util

import torch

from cascade.export.viewer import open3d
from cascade.generation.load import best_device
from cascade.hub.embedded import NAMES, embedded

EXTRAS = {
    "zarr": "zarr",
    "slurm": "submitit",
    "cellpose": "cellpose",
    "app": "gradio",
}  # and the package that each brings


def doctor() -> None:
    """Print what is installed and what works."""
    print(f"cascade-microscopy {metadata.version('cascade-microscopy')}")
    for name in (
        "torch",
        "diffusers",
        "transformers",
        "accelerate",
        "datasets",
        "scikit-image",
        "trimesh",
        "open3d",
    ):
        print(f"  {name} {metadata.version(name)}")
    for extra, name in EXTRAS.items():
        there = metadata.version(name) if util.find_spec(name) else f"missing: pip install -e '.[{extra}]'"
        print(f"  {name} (extra {extra}): {there}")
    if util.find_spec("torchvision"):
        print("  torchvision is installed: if diffusers fails to import, 'pip uninstall torchvision'")
    print(f"  device: {best_device()}, {torch.get_num_threads()} threads")
    for name in NAMES:
        try:
            print(f"  {name}: {embedded(name)}")
        except FileNotFoundError as error:
            print(f"  {name}: {error}")
    try:
        open3d()
        print("  open3d: works")
    except ImportError as error:
        print(f"  open3d: {error}")
