"""`cascade sketch`: sketches of annotations, to look at, fitted to images."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from cascade.annotation import Annotation
from cascade.commands.again import make_again
from cascade.commands.simulate import files_of, labels_source
from cascade.data.label_sets import LabelFile, find_labels
from cascade.data.pairs import ANY_CHANNEL
from cascade.data.seen import Seen
from cascade.data.sketches import fit_seen, look_for
from cascade.entry import UsageError
from cascade.evenly import evenly
from cascade.export.preview import outlined_sheet
from cascade.generation import shards
from cascade.generation.painting import painted
from cascade.generation.simulation import some_of
from cascade.generation.sketching import SketchingSettings, sketched, sketching_job
from cascade.ownership import check_not_input, check_outside
from cascade.rng import stream
from cascade.simulators.labels import LabelsSettings
from cascade.sketch.draw import draw_sketch
from cascade.sketch.settings import SketchSettings

_SHOWN = 3
_ANYTHING = "no images to go by: sketches have brightness of no camera; give --like IMAGES"


def sketch(asked: SketchingSettings) -> None:
    """Draw a data set of sketches, or what is left of it; `sketch.json` beside them holds their numbers.

    Raises ValueError for folders without annotations, for images of another dimension, and for settings that cannot be,
    FileExistsError for a folder that holds something else, all before anything is drawn.
    """
    check_outside(asked.output_dir, asked.source, "the annotations")
    files = find_labels(asked.source, asked.truth, asked.sequences, channel=ANY_CHANNEL)
    labels = LabelsSettings(source=asked.source, truth=asked.truth, spacing_um=asked.spacing_um)
    one, there = labels_source(labels, files)

    def source(seed: int, index: int) -> Annotation:
        return one(seed, index % there)

    own = _settings(asked, files, source(asked.seed, 0).ndim)
    job = sketching_job(asked, own, files_of(files), asked.num_images or there, some_of(one, asked.seed, there))
    output, make = asked.output_dir, painted(source, sketched(own))
    if asked.only is not None:
        return make_again(output, job, make, asked.only, "sketch")
    shards.start(output, job)
    own.save(output / "sketch.json")
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if not shards.run(output, job, make, rank, world):
        done, count = shards.progress(output, job)
        print(f"{done} of {count} shards are done; other processes, or the same command again, make the rest")
        return
    print(
        f"{job.num_images} sketches in {output} ({' and '.join(job.formats)}); look at {output / 'preview.png'}\n"
        f"their numbers are in {output / 'sketch.json'}: change them and give them with --settings to another "
        f"--output_dir; next: cascade generate --model … --annotations {asked.source}"
    )


def _settings(asked: SketchingSettings, files: list[LabelFile], ndim: int) -> SketchSettings:
    """Those of a file, or fitted to images, which are shown beside their sketches; else any."""
    if asked.like_sequences and asked.like is None:
        raise UsageError("--like_sequences goes with --like FOLDER")
    if asked.settings is not None:
        if asked.like_channel is not None:
            raise UsageError("--like_channel goes without --settings, which looks at no images")
        own = SketchSettings.load(asked.settings)
        return own if asked.structure is None else replace(own, structure=asked.structure)
    with_images = all(file.frame.image_path != file.path for file in files)
    if asked.like is None and not with_images:
        print(_ANYTHING)
        return SketchSettings(structure=asked.structure or "cells")
    folder = asked.like or asked.source
    check_not_input(asked.output_dir.parent, folder)  # where a picture will lie, too
    seen = look_for(
        asked.structure,
        folder,
        truth=asked.truth,
        sequences=asked.like_sequences if asked.like else asked.sequences,
        channel=asked.like_channel,
        spacing_um=asked.spacing_um,
    )
    if len(seen.spacing_um) != ndim:
        kinds = {2: "planes", 3: "stacks"}
        raise UsageError(
            f"{folder} holds {kinds[len(seen.spacing_um)]}, {asked.source} {kinds[ndim]}: give images alike"
        )
    own = fit_seen(seen, structure=asked.structure)
    print(_said(own, seen))
    picture = asked.output_dir.with_name(f"{asked.output_dir.name}_like.png")
    picture.parent.mkdir(parents=True, exist_ok=True)
    _draw(seen, own, picture)
    print(f"images beside their sketches: {picture}")
    return own


def _said(own: SketchSettings, seen: Seen) -> str:
    """What was fitted, in short."""
    low, middle, high = (np.percentile(own.brightness, q) for q in (5, 50, 95))
    lines = [
        f"{seen.folder}: {len(seen.labels)} of {seen.num_images} images ({seen.origin}), {own.structure}",
        f"  brightness {middle:.4g} ({low:.4g} to {high:.4g}) on a background of {np.median(own.background):.4g}",
    ]
    if own.structure == "membranes":
        inside = np.median(own.interior)
        lines.append(f"  membranes {own.thickness_um:.2g} µm, blurred by {own.softness_um:.2g} µm; inside {inside:.2g}")
    else:
        lines.append(f"  rim {own.profile[0]:.2g}, middle {own.profile[-1]:.2g} of a cell's light")
        if len(own.axial_profile) > 1:
            lines.append(
                f"  ends along z {own.axial_profile[0]:.2g} of that; stray light {own.glow_axial:g} times as far there"
            )
    if own.axial_decay or own.radial_decay:
        lines.append(
            f"  lost per µm along z {own.axial_decay:.2g}, to the middle of the organism {own.radial_decay:.2g}"
        )
    return "\n".join(lines)


def _draw(seen: Seen, own: SketchSettings, path: Path) -> None:
    """Some images, each beside the sketch of its cells."""
    pictures = []
    for n in evenly(len(seen.labels), _SHOWN):
        image, labels = seen.image(n), seen.labels[n]
        kind = labels if labels.dtype.kind == "u" else labels.astype(np.uint32)
        annotation = Annotation.of_labels(kind, seen.spacing_um)
        drawn = draw_sketch(annotation, own, stream(0, "beside", n))
        if image is None:
            continue
        if labels.ndim == 3:
            z = int(np.argmax((labels > 0).sum((1, 2))))
            image, drawn = image[z], drawn[z]
        both = np.concatenate([image.astype(np.float32), drawn], -1)
        pictures.append((both, np.zeros(both.shape, np.uint16)))
    outlined_sheet(pictures, path, columns=1)
