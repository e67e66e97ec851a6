"""Packages that only some of the work needs: imported when it is asked for, and named where they are missing."""

import importlib
from types import ModuleType

EXTRAS = {
    "app": "gradio",
    "bioio": "bioio",
    "cellpose": "cellpose",
    "imagej": "roifile",
    "slurm": "submitit",
    "tensorboard": "tensorboard",
    "transformers": "transformers",
    "viewer": "open3d",
}
"""Extras of this package, each with the module that it brings."""


def install(extra: str) -> str:
    """The command that installs an extra.

    >>> install("imagej")
    "pip install 'cascade-microscopy[imagej]'"
    """
    return f"pip install 'cascade-microscopy[{extra}]'"


def needed(extra: str, what: str) -> ModuleType:
    """The module of an extra. Raises ImportError where it is missing, which says what needs it and how it is installed.

    >>> needed("imagej", "ImageJ ROIs").__name__
    'roifile'
    """
    name = EXTRAS[extra]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise ImportError(f"{what}: needs {name}, which is not installed: {install(extra)}") from error
