"""`cascade simulate`: annotations of an organism, or of labels that exist, here or among processes."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from cascade import __version__
from cascade.annotation import Annotation
from cascade.commands.again import make_again
from cascade.data.label_sets import LabelFile, find_labels
from cascade.data.like import like
from cascade.data.pairs import ANY_CHANNEL
from cascade.entry import UsageError
from cascade.files import replacing
from cascade.generation import shards
from cascade.generation.painting import Source
from cascade.generation.simulation import SimulateSettings, simulated, simulation_job, unpainted
from cascade.ownership import check_not_input, check_outside
from cascade.reading import DataError
from cascade.simulators.catalogue import ORGANISMS
from cascade.simulators.labels import LabelsSettings, layered, over_time, repeated, whole
from cascade.sketch.settings import Structure

_SHOWING: dict[str, Structure | None] = {"nuclei": "cells", "tissue": "membranes", "auto": None}
"""What raw images show, of organisms whose settings `--like` fits; None: what is seen in them."""
FITTED = tuple(_SHOWING)

Check = Callable[[Annotation], None]
"""Raises ValueError for an annotation that cannot be used."""


def simulate(organism: str, own: Any, settings: SimulateSettings) -> None:
    """Make a data set of annotations, or what is left of it; own: settings of the organism.

    Raises ValueError for settings that cannot be, FileExistsError for a folder that holds something else, both before
    anything is made.
    """
    if isinstance(own, LabelsSettings):
        check_outside(settings.output_dir, own.source, "the labels")
        files = find_labels(own.source, own.truth, own.sequences, channel=ANY_CHANNEL)
        source, there = labels_source(own, files)
        wanted = settings.num_images or there
        if wanted > there:
            raise ValueError(f"num_images asks for {wanted}, and {own.source} holds labels for {there}")
        settings = replace(settings, num_images=wanted)
        job = simulation_job(settings, organism, own, source, files=files_of(files))
    else:
        source = simulated(ORGANISMS[organism].simulate(), own)
        job = simulation_job(settings, organism, own, source)
    output, make = settings.output_dir, unpainted(source)
    if settings.only is not None:
        return make_again(output, job, make, settings.only, "annotation")
    shards.start(output, job)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if not shards.run(output, job, make, rank, world):
        done, count = shards.progress(output, job)
        print(f"{done} of {count} shards are done; other processes, or the same command again, make the rest")
        return
    print(f"{job.num_images} annotations in {output} ({' and '.join(job.formats)}); look at {output / 'preview.png'}")


def settings_of(organism: str, settings: SimulateSettings, given: dict[str, Any]) -> tuple[str, Any]:
    """The organism, and its settings: those that are given, and of `FITTED` the others read off images.

    Raises ValueError for `auto` without images, and for images with an organism that has numbers of its own.
    """
    if settings.like is None:
        if organism == "auto":
            raise UsageError("auto needs --like FOLDER, images to choose a simulator for")
        if settings.like_sequences or settings.like_channel is not None:
            name = "sequences" if settings.like_sequences else "channel"
            raise UsageError(f"--like_{name} goes with --like FOLDER")
        return organism, ORGANISMS[organism].settings_class()(**given)
    if organism not in FITTED:
        known = f"{', '.join(FITTED[:-1])} and {FITTED[-1]}"
        raise UsageError(f"--like goes with {known}; {organism} has the numbers of its paper")
    chosen, own = fitted(organism, settings, given)
    strange = sorted(given.keys() - {one.name for one in fields(own)})
    if strange:
        raise UsageError(f"--{strange[0]} is none of {chosen}, which these images show: leave it out, or give nuclei")
    return chosen, replace(own, **given)


def fitted(organism: str, settings: SimulateSettings, given: dict[str, Any]) -> tuple[str, Any]:
    """The simulator for images like those in `settings.like`, with numbers and sizes fitted to them.

    What was measured is printed, and beside the output folder lie a picture of what was seen, and the fit: other
    processes, and the same command again, read it there as long as images and version are the same.
    """
    folder, output = settings.like or Path(), settings.output_dir
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; name the folder that holds the images")
    check_not_input(output.parent, folder)  # where a picture will lie, too
    picture, record = (output.with_name(f"{output.name}_like.{kind}") for kind in ("png", "json"))
    how = {name: given.get(name, ()) for name in ("spacing_um", "canvas_size")}
    looked = [settings.like_sequences, settings.like_channel]
    of = json.loads(json.dumps([organism, how, *looked, __version__, contents(folder, output.parent)]))
    if (kept := _kept(record, of)) is not None:
        print(f"{kept[0]}, as it was fitted before: see {record}")
        return kept
    seen = like(
        folder,
        spacing_um=how["spacing_um"],
        sequences=settings.like_sequences,
        channel=settings.like_channel,
        structure=_SHOWING[organism],
    )
    chosen = seen.organism if organism == "auto" else organism
    print(seen.table())
    picture.parent.mkdir(parents=True, exist_ok=True)
    seen.draw(picture)
    print(f"{chosen}; look at what was seen: {picture}")
    own = (seen.settings if chosen == "nuclei" else seen.tissue_settings)(canvas_size=how["canvas_size"] or None)
    with replacing(record) as temporary:
        temporary.write_text(json.dumps({"of": of, "organism": chosen, "settings": asdict(own)}, indent=1))
    return chosen, own


def files_of(files: Sequence[LabelFile]) -> list[Path]:
    """Each once, in their order."""
    return list(dict.fromkeys(path for file in files for path in file.files))


def contents(folder: Path, but: Path) -> str:
    """A hash of the names, sizes and times of all files in a folder, but for those in another one that lies in it."""
    whole, other = folder.resolve(), but.resolve()
    left_out = other if whole in other.parents else None  # the folder may as well lie in the other one
    digest = hashlib.sha256(str(whole).encode())
    for path in sorted(folder.rglob("*")):
        if path.is_file() and left_out not in path.resolve().parents:
            digest.update(f"{path.relative_to(folder)} {path.stat().st_size} {path.stat().st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _kept(record: Path, of: list[Any]) -> tuple[str, Any] | None:
    """The organism and settings that were fitted before to the same images; None if there is no such fit."""
    try:
        kept = json.loads(record.read_text())
        if kept["of"] != of:
            return None
        numbers = {name: tuple(value) if isinstance(value, list) else value for name, value in kept["settings"].items()}
        return kept["organism"], ORGANISMS[kept["organism"]].settings_class()(**numbers)
    except (OSError, ValueError, KeyError, TypeError):  # none, or one that is broken: it is made anew
        return None


def labels_source(
    settings: LabelsSettings, files: Sequence[LabelFile], check: Check | None = None
) -> tuple[Source, int]:
    """Labels that exist as a source, and how many annotations they are. check: is made of each as it is read; what it
    raises names the file."""

    def one(seed: int, index: int) -> Annotation:
        file = files[index]
        try:
            annotation = _read(file, settings)
            if check is not None:
                check(annotation)
            return annotation
        except DataError:
            raise
        except ValueError as error:
            raise DataError(f"{file.path}: {error}") from error

    sequences = [sorted(frames, key=_in_time) for _, frames in groupby(files, lambda file: file.path.parent)]

    def sequence(seed: int, index: int) -> Annotation:
        _check_times(sequences[index])
        frames = [file.annotation(settings.spacing_um)[0] for file in sequences[index]]
        try:
            return over_time(frames, settings.step_um or frames[0].spacing_um[0])
        except ValueError as error:
            raise DataError(f"{settings.source}: {error}") from error

    return (sequence, len(sequences)) if settings.reading == "time" else (one, len(files))


def _in_time(file: LabelFile) -> list[str | int]:
    """By what files are in the order of time: their names, in which numbers count as such, 2 before 10."""
    parts = re.split(r"(\d+)", file.path.name)
    return [int(part) if n % 2 else part for n, part in enumerate(parts)]


def _check_times(files: Sequence[LabelFile]) -> None:
    """Raise DataError where a sequence of the Cell Tracking Challenge lacks the labels of a frame in between."""
    told = [re.fullmatch(r"man_seg(\d+)", file.path.stem) for file in files]
    times = [int(found[1]) for found in told if found]
    for before, after in pairwise(times):
        if after != before + 1 and len(times) == len(files):
            raise DataError(
                f"{files[0].path.parent}: frame {before} is followed by {after}, and reading time needs the labels of "
                "all frames: take those of a tracker, or frames without a gap"
            )


def _read(file: LabelFile, settings: LabelsSettings) -> Annotation:
    if settings.reading == "layers":
        flat = len(settings.spacing_um) == 2  # the layers of a file have no distance from each other
        annotation, _ = file.annotation((1.0, *settings.spacing_um) if flat else settings.spacing_um)
        return layered(annotation.labels, annotation.spacing_um[-2:])  # type: ignore[arg-type]
    annotation, _ = file.annotation(settings.spacing_um)
    if settings.reading == "slice":
        step = settings.step_um or file.step_um(settings.spacing_um) or annotation.spacing_um[0]
        return repeated(whole(annotation), settings.slices, step)
    if file.frame.z is not None:
        raise ValueError("labels of one slice of a stack: give reading slice, or the stack's own labels")
    return whole(annotation)
