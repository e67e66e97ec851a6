"""Data sets of annotations without images: what a simulator makes of seed and number, in shards."""

import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade import __version__
from cascade.annotation import Annotation, Sample
from cascade.evenly import evenly
from cascade.export import ctc
from cascade.generation.jobs import Job
from cascade.generation.painting import Make, Source
from cascade.generation.settings import Format
from cascade.ownership import file_sha256
from cascade.rng import stream
from cascade.settings import at_least, check_fields
from cascade.simulators.catalogue import Simulator

_SPARE = 2  # times the cells of those looked at that images are taken to have at most on average
_LOOKED_AT = 8  # of labels that exist
_SIMULATED = 3  # of those that are simulated for it: the first may have far fewer cells than others
_LONGEST = 400  # frames of a sequence in the Cell Tracking Challenge's layout


@dataclass(frozen=True, kw_only=True)
class SimulateSettings:
    """One data set of annotations to be simulated, or to be gone on with."""

    output_dir: Path
    """Folder of the data set."""
    num_images: int | None = None
    """How many annotations; default 1, of labels that exist as many as there are."""
    seed: int = 0
    """Annotation n depends on it and on n alone."""
    format: tuple[Format, ...] = ("annotations",)
    """annotations, which keeps all that is known of the cells, ctc, cellpose, stardist, nnunet, ome-tiff, ome-zarr,
    coco or huggingface, each without images; several may be given."""
    like: Path | None = None
    """Folder of images, raw or labelled, that numbers and sizes are fitted to; for nuclei, tissue and auto."""
    like_sequences: tuple[str, ...] = ()
    """Of a Cell Tracking Challenge folder, those that --like looks at; default all."""
    like_channel: str | None = None
    """Of images of several channels: the one to look at, by its name, or by its number from 1."""
    shard_size: int = 4
    """Annotations between two points to resume from."""
    only: int | None = None
    """Make this annotation again and compare it."""

    def __post_init__(self) -> None:
        check_fields(self)
        at_least(self, num_images=1, seed=0, shard_size=1, only=0)


def simulated(simulator: Simulator, settings: Any) -> Source:
    """A simulator as a source: annotation n of a seed is drawn from a stream of its own."""

    def source(seed: int, index: int) -> Annotation:
        return simulator(stream(seed, "simulate", index), settings)

    return source


def unpainted(source: Source) -> Make[Sample]:
    """Samples without an image, one for each annotation."""

    def make(seed: int, numbers: Iterable[int]) -> Iterator[Sample]:
        for index in numbers:
            yield Sample(None, source(seed, index), seed, index)

    return make


def simulation_job(
    settings: SimulateSettings, organism: str, own: Any, source: Source, *, files: Sequence[Path] | None = None
) -> Job:
    """What a data set of annotations is made of: the organism, its settings, and the bytes of files.

    files: of labels that exist; default those that the settings name. Raises ValueError for files that are not there,
    and formats that cannot hold the annotations.
    """
    exist = files is not None
    if files is None:
        files = [value for value in dataclasses.asdict(own).values() if isinstance(value, Path)]
    return Job(
        model=f"simulate {organism}",
        model_sha256=files_sha256(files),
        version=__version__,
        seed=settings.seed,
        num_images=settings.num_images or 1,
        shard_size=settings.shard_size,
        formats=settings.format,
        frames_per_sequence=frames_per_sequence(
            settings.format,
            some_of(source, settings.seed, settings.num_images if exist else None, simulated=settings.num_images or 1),
        ),
        meshes=False,
        settings={"organism": organism, **plain_fields(own)},
    )


def some_of(source: Source, seed: int, count: int | None, *, simulated: int = 1) -> Iterator[Annotation]:
    """Annotations that stand for all: some of `count` that exist, or where None do, some of so many `simulated`."""
    return (source(seed, index) for index in (evenly(count, _LOOKED_AT) if count else evenly(simulated, _SIMULATED)))


def frames_per_sequence(formats: Sequence[str], some: Iterable[Annotation]) -> int:
    """Images in a sequence of the Cell Tracking Challenge's layout, for annotations like these, which are not asked for
    in other layouts.

    Raises ValueError for formats that cannot hold the annotations.
    """
    if not {"ctc", "coco"} & set(formats):
        return _LONGEST
    most = 1
    for one in some:
        if "coco" in formats and one.ndim == 3:
            raise ValueError("COCO describes planes, and these are stacks: give another `format`")
        most = max(most, len(one.cells))
    if most > ctc.TRACK_IDS:
        raise ValueError(
            f"images of {most} cells are too many for the {ctc.TRACK_IDS} numbers of the Cell Tracking Challenge's "
            "layout: give another `format`, ome-zarr for one"
        )
    return min(_LONGEST, max(ctc.TRACK_IDS // (_SPARE * most), 1))


def files_sha256(files: Sequence[Path]) -> str:
    """One hash of files, by content."""
    digest = hashlib.sha256()
    for path in files:
        if not path.is_file():
            raise ValueError(f"{path}: there is no such file")
        digest.update(file_sha256(path).encode())
    return digest.hexdigest() if files else ""


def plain_fields(settings: Any) -> dict[str, Any]:
    """The fields of settings as plain values by name, for a job's `settings`."""
    return {name: _plain(value) for name, value in dataclasses.asdict(settings).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.resolve())
    return [_plain(one) for one in value] if isinstance(value, tuple) else value
