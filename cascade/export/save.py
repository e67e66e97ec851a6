"""Writing a few samples to disk: complete, or not at all."""

from collections.abc import Iterable
from pathlib import Path

from cascade.export.formats import DataSetWriter
from cascade.export.preview import sample_preview
from cascade.files import replacing_folder

MARK = "provenance.jsonl"  # a folder with this file is a data set of ours, and may be replaced


def save_samples(
    samples: Iterable,
    output_dir: str | Path,
    formats: tuple[str, ...] = ("ctc",),
    meshes: bool = False,
    about: dict | None = None,
) -> Path:
    """Write samples, their provenance and a preview of the first; returns the folder.

    samples: consumed one by one. formats, meshes: see `DataSetWriter`. about: recorded in the index files.

    Everything is written under a temporary name and renamed at the end; an earlier data set there is replaced, any
    other folder refused with FileExistsError. For data sets of thousands, and to go on after an interruption, see
    `cascade.generation`.
    """
    output = Path(output_dir)
    check_replaceable(output)
    writer = DataSetWriter(tuple(formats), meshes=meshes)
    records = []
    with replacing_folder(output) as partial:
        for number, sample in enumerate(samples):
            if number == 0:
                sample_preview(sample, partial / "preview.png")
            records.append(writer.write(sample, number, partial))
        if not records:
            raise ValueError("there is no sample to save")
        writer.finish(partial, records, about or {})
    return output


def check_replaceable(output: Path) -> None:
    """Raise FileExistsError if a folder holds something that is not a data set of ours."""
    # `.cascade` alone is what a generation leaves that was killed before it had begun.
    if output.exists() and {p.name for p in output.iterdir()} - {".cascade"} and not (output / MARK).is_file():
        raise FileExistsError(f"{output}: holds something else than a data set; name another folder")
