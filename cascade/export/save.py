"""Writing a few samples to disk: complete, or not at all."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cascade.annotation import Sample
from cascade.export.formats import FORMATS, DataSetWriter
from cascade.export.preview import sample_preview
from cascade.files import STATE, exclusive
from cascade.ownership import is_free, renewing

MARK = "provenance.jsonl"  # a folder with this file is a whole data set of ours
_KIND = "samples"
_FOLDERS = ["train", "stacks", "images", "masks", "labels", "annotations", "imagesTr", "labelsTr", "instancesTr"]
_EACH = (  # what versions without a list of files wrote, in every format
    "dataset.json",
    "annotations.json",
    "[0-9][0-9]/t[0-9]*.tif",
    "[0-9][0-9]_GT/*/man_*[0-9]*.tif",
    "[0-9][0-9]_GT/TRA/man_track.txt",
    "train/dataset.json",
    "stacks/dataset.json",
    "data/train-[0-9]*.parquet",
    "sample_[0-9]*.ome.zarr/**/*",
    *(f"{name}/sample_[0-9]*.*" for name in _FOLDERS),
)
_ALL = (MARK, "cells.parquet", "preview.png", "meshes/sample_[0-9]*/cell_*.glb", *_EACH)
_OLDER = (*_ALL, *(f"{name}/{pattern}" for name in FORMATS for pattern in _EACH))


def save_samples(
    samples: Iterable[Sample],
    output_dir: str | Path,
    formats: tuple[str, ...] = ("ctc",),
    meshes: bool = False,
    about: dict[str, Any] | None = None,
) -> Path:
    """Write samples, their provenance and a preview of the first; returns the folder.

    samples: consumed one by one. formats, meshes: see `DataSetWriter`. about: recorded in the index files.

    Everything is written under a temporary name and put in place at the end. The files of an earlier data set there
    are replaced, what users put beside them stays; any other folder is refused with FileExistsError, one that another
    process works in with `files.Busy`. For data sets of thousands, and to go on after an interruption, see
    `cascade.generation`.
    """
    output = Path(output_dir)
    writer = DataSetWriter(tuple(formats), meshes=meshes)
    records = []
    with exclusive(output, "the saving of samples"):
        check_replaceable(output)
        with renewing(output, _KIND, last=MARK, older=_OLDER) as partial:
            for number, sample in enumerate(samples):
                if number == 0:
                    sample_preview(sample, partial / "preview.png")
                records.append(writer.write(sample, number, partial))
            if not records:
                raise ValueError("there is no sample to save")
            writer.finish(partial, records, about or {})
    return output


def check_replaceable(output: Path) -> None:
    """Raise FileExistsError if a folder holds something that is not a data set saved by `save_samples`."""
    made_in_shards = (output / STATE / "job.json").is_file()
    if made_in_shards or not is_free(output, _KIND, older=(output / MARK).is_file()):
        raise FileExistsError(f"{output}: holds something else than a data set of a few samples; name another folder")
