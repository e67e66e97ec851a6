"""`cascade fit` for programs that hold images and labels as arrays: told how far it is, and stopped at any time."""

import contextlib
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import tifffile

from cascade.commands.child import run_child
from cascade.commands.fit import SAID_ABOVE
from cascade.commands.fit_progress import train_steps
from cascade.commands.settings import FitSettings
from cascade.export.tiff import write_tiff
from cascade.files import BrokenRecord, replacing_folder
from cascade.ownership import names_in
from cascade.training.log import last_step

_STEP = re.compile(r"\[(\d+)/(\d+)\] (\w+)$")  # as `fit` says which one it begins
_NAME = "cascade fit: "  # before what it ends with


@dataclass(frozen=True)
class FitState:
    """How far a fit is."""

    step: str = ""
    """What it does, one of `Step`; nothing before the first."""
    number: int = 0
    """Of this step among those of the plan, from 1."""
    of: int = 0
    """How many steps there are."""
    share: float | None = None
    """What is done of the step, 0 to 1; None where that is not known."""
    said: str = ""
    """The line that was printed last."""


def fit_arrays(
    images: Sequence[npt.NDArray[Any]],
    labels: Sequence[npt.NDArray[Any]],
    plan: FitSettings,
    *,
    tell: Callable[[FitState], None] | None = None,
) -> Path:
    """Learn from annotated arrays what `fit` learns from files, in a process of its own; returns the model's folder.

    images: planes (Y, X) or stacks (Z, Y, X), intensities. labels: of each, whole numbers, 0 for the background and one
    for each cell; images without any are looked at, but not learned from. plan: as for `fit`; its `source` is the
    folder that the arrays are written to, and `spacing_um` their voxel size. With `sparse` the annotated planes of a
    stack are taken for single slices of it. tell: called a few times a second with how far it is. What it raises stops
    the work; what is finished is kept, and the same call, or the command `fit_words` gives, goes on from there.

    Raises ValueError, in one line, for arrays, settings and folders that cannot be learned from or into; RuntimeError
    if a step fails.
    """
    _check(images, labels, plan)
    _write(images, labels, plan)
    with tempfile.TemporaryFile() as output:

        def look() -> None:
            if tell is not None:
                tell(_state(plan, _printed(output)))

        code = run_child("cascade", fit_words(plan)[1:], output=output, tell=look)
        printed = _printed(output)
    if code:
        raise _mistake(printed)
    return plan.output_dir / "model"


def fit_words(plan: FitSettings) -> list[str]:
    """The command that carries out a plan: only what is not at its default.

    >>> fit_words(FitSettings("images", output_dir="cells", sparse=True, spacing_um=(0.5, 0.5)))
    ['cascade', 'fit', 'images', '--output_dir', 'cells', '--spacing_um', '0.5', '0.5', '--sparse']
    """
    words = ["cascade", "fit", str(plan.source)]
    for one in fields(plan):
        value = getattr(plan, one.name)
        if not one.kw_only or value == one.default:
            continue
        words.append(f"--{one.name}")
        if value is not True:
            words += map(str, value) if isinstance(value, tuple) else [str(value)]
    return words


def _check(images: Sequence[npt.NDArray[Any]], labels: Sequence[npt.NDArray[Any]], plan: FitSettings) -> None:
    """Raise ValueError for arrays that do not fit each other or the plan."""
    if plan.simulate is not None:
        raise ValueError("simulate goes without labels: use fit on a folder of images")
    if not images or len(images) != len(labels):
        raise ValueError(f"{len(images)} images and {len(labels)} labels: give as many of both, and one at least")
    for image, label in zip(images, labels, strict=True):
        if image.ndim not in (2, 3) or image.ndim != images[0].ndim:
            raise ValueError(f"an image has {image.ndim} axes {image.shape}: all must be (Y, X), or all (Z, Y, X)")
        if label.shape != image.shape:
            raise ValueError(f"labels have shape {label.shape}, their image {image.shape}: they must be as large")
        if label.dtype.kind not in "ui" or label.min(initial=0) < 0:
            raise ValueError(f"labels must be whole numbers from 0, one for each cell, got {label.dtype}")
    if len(plan.spacing_um) != images[0].ndim:
        axes = "z y x"[-2 * images[0].ndim + 1 :]
        raise ValueError(f"spacing_um must be the voxel size {axes} of the images, in µm, got {plan.spacing_um}")
    if not any(label.any() for label in labels):
        raise ValueError("the labels hold no cell: outline some, each with a number of its own")


def _write(images: Sequence[npt.NDArray[Any]], labels: Sequence[npt.NDArray[Any]], plan: FitSettings) -> None:
    """Put the arrays where `fit` reads them, if they are not there yet; ValueError if others are."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for n, (image, label) in enumerate(zip(images, labels, strict=True)):
        arrays[f"01/t{n:03d}.tif"] = _intensities(image)
        kept = label.astype(np.uint16 if label.max(initial=0) < 2**16 else np.uint32)
        if plan.sparse and label.ndim == 3:
            shown = np.flatnonzero(label.any((1, 2)))
            arrays |= {f"01_GT/SEG/man_seg_{n:03d}_{z:03d}.tif": kept[z] for z in shown}
        elif label.any():
            arrays[f"01_GT/SEG/man_seg{n:03d}.tif"] = kept
    source = plan.source
    there = names_in(source) if source.is_dir() else []
    if any(name not in arrays or not _holds(source / name, arrays[name]) for name in there):
        raise ValueError(f"{source}: holds other images or labels than these; name another folder, or remove it")
    if len(there) < len(arrays):
        with replacing_folder(source) as partial:
            for name in arrays.keys() - set(there):
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                write_tiff(partial / name, arrays[name], plan.spacing_um[-arrays[name].ndim :])


def _intensities(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Of a type that TIFFs have; the values stay."""
    if image.dtype in (np.uint8, np.uint16, np.float32):
        return image
    whole = image.dtype.kind in "ui" and image.min(initial=0) >= 0 and image.max(initial=0) < 2**16
    return image.astype(np.uint16 if whole else np.float32)


def _holds(path: Path, array: npt.NDArray[Any]) -> bool:
    try:
        return np.array_equal(tifffile.imread(path), array)
    except (ValueError, OSError):
        return False


def _printed(output: IO[bytes]) -> list[str]:
    """The lines of the child so far, read without moving the place in the file that it goes on writing from."""
    text = os.pread(output.fileno(), os.fstat(output.fileno()).st_size, 0)
    return [line for line in text.decode(errors="replace").splitlines() if line.strip()]


def _state(plan: FitSettings, printed: list[str]) -> FitState:
    begun = [found for line in printed if (found := _STEP.match(line))]
    said = printed[-1] if printed else ""
    if not begun:
        return FitState(said=said)
    number, of, step = begun[-1].groups()
    return FitState(step, int(number), int(of), _share(plan, step), said)


def _share(plan: FitSettings, step: str) -> float | None:
    """What is done of a step, as its own records say."""
    with contextlib.suppress(FileNotFoundError, BrokenRecord, ValueError):
        if step == "generate":
            from cascade.generation.shards import load_job, progress  # heavy; only needed here

            folder = plan.output_dir / "synthetic"
            done, shards = progress(folder, load_job(folder))
            return done / shards
        steps = train_steps(plan.output_dir)
        if step in steps:
            return min(last_step(plan.output_dir / "stages" / step) / steps[step], 1.0)
    return None


def _mistake(printed: list[str]) -> Exception:
    """What a fit that failed ended with."""
    *before, last = printed or ["cascade fit ended without a word: is there enough memory?"]
    said = before[-1] if SAID_ABOVE in last and before else last
    return (ValueError if last.startswith(_NAME) else RuntimeError)(said.removeprefix(_NAME))
