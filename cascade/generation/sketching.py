"""Sketches as a data set: the painter that draws them, and what a set of them is made of."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Literal

from cascade import __version__
from cascade.annotation import Annotation, Sample
from cascade.generation.jobs import Job
from cascade.generation.painting import Painter
from cascade.generation.settings import Format
from cascade.generation.simulation import frames_per_sequence
from cascade.optics.camera import digitise
from cascade.ownership import file_sha256
from cascade.rng import stream
from cascade.settings import at_least, check_fields, check_spacing
from cascade.sketch.draw import draw_sketch
from cascade.sketch.settings import SketchSettings, Structure


@dataclass(frozen=True)
class SketchingSettings:
    """Which annotations are sketched, and like what.

    >>> SketchingSettings("annotations", output_dir="sketches", format=("annotations",))
    Traceback (most recent call last):
    ValueError: format annotations holds no images: give one that does, cellpose for one
    """

    source: Path
    """Folder of annotations: what simulate wrote, or labels in a layout that prepare reads, with or without images."""
    _: KW_ONLY
    output_dir: Path
    """Folder of the sketches."""
    like: Path | None = None
    """Folder of images, raw or labelled, that the sketches are fitted to; default the annotations' own, if they have
    some."""
    settings: Path | None = None
    """Numbers of the sketches instead: sketch.json, as this command writes it."""
    structure: Structure | None = None
    """cells, or membranes between them; default what the images show."""
    num_images: int | None = None
    """How many sketches; default one of each annotation, and with more every annotation is drawn again."""
    seed: int = 0
    """Sketch n depends on it and on n alone."""
    format: tuple[Format, ...] = ("cellpose",)
    """ctc, cellpose, stardist, nnunet, ome-tiff, ome-zarr, coco or huggingface; several may be given."""
    truth: Literal["gt", "st"] = "gt"
    """The Cell Tracking Challenge's gold or silver truth."""
    sequences: tuple[str, ...] = ()
    """Which of its sequences are sketched; default all."""
    like_sequences: tuple[str, ...] = ()
    """Which sequences of `like` are fitted to; default all."""
    like_channel: str | None = None
    """Of images of several channels, those of `like` or the annotations' own: the one to look at, by its name, or by
    its number from 1."""
    spacing_um: tuple[float, ...] = ()
    """Voxel size z y x or y x; default as stored."""
    shard_size: int = 4
    """Sketches between two points to resume from."""
    only: int | None = None
    """Make this sketch again and compare it."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_spacing("spacing_um", self.spacing_um)
        at_least(self, num_images=1, seed=0, shard_size=1, only=0)
        if "annotations" in self.format:
            raise ValueError("format annotations holds no images: give one that does, cellpose for one")
        if self.like is not None and self.settings is not None:
            raise ValueError("like and `settings` both say what sketches look like: give one of them")


def sketched(settings: SketchSettings) -> Painter:
    """A painter whose pictures are the sketches themselves, as integers of the data set's dtype."""

    def painter(annotation: Annotation, seed: int, index: int) -> Sample:
        image = digitise(draw_sketch(annotation, settings, stream(seed, "sketch", index)), settings.dtype)
        return Sample(image, annotation, seed, index)

    return painter


def sketching_job(
    asked: SketchingSettings, own: SketchSettings, files: Sequence[Path], count: int, some: Iterable[Annotation]
) -> Job:
    """What a data set of `count` sketches is made of: the annotations' bytes and the numbers of the sketches.

    some: of the annotations, which stand for all. Raises ValueError for formats that cannot hold them.
    """
    digest = hashlib.sha256()
    for path in files:
        digest.update(file_sha256(path).encode())
    return Job(
        model="sketch",
        model_sha256=digest.hexdigest(),
        version=__version__,
        seed=asked.seed,
        num_images=count,
        shard_size=asked.shard_size,
        formats=asked.format,
        frames_per_sequence=frames_per_sequence(asked.format, some),
        meshes=False,
        settings=own.record(),
    )
