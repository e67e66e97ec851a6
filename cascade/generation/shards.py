"""Generating large data sets in shards: interrupted and resumed at will, by one process or many, to the same bytes."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from tqdm.auto import tqdm

from cascade.annotation import Sample
from cascade.export.preview import sample_preview
from cascade.export.records import SampleRecord
from cascade.export.save import MARK
from cascade.files import STATE, BrokenRecord, read_record, replacing
from cascade.generation.jobs import Job, check_same, load_job, start
from cascade.generation.marks import SHOWN, Mark, faults
from cascade.generation.painting import Made, Make, Write
from cascade.hub.folders import FEW_STEPS
from cascade.locks import one_at_a_time, remove_dead, scratch, shared
from cascade.ownership import (
    UNKNOWN,
    Stamp,
    file_sha256,
    keep_aside,
    names_in,
    stamps_from_json,
    stamps_of,
    stamps_to_json,
)

__all__ = ["Job", "again", "file_sha256", "folder_sha256", "load_job", "progress", "run", "start"]

_INDEXED = (MARK, "cells.parquet")  # in every data set
_INDEX = "index.json"  # stamps of the files that are written when all shards are there


def run(
    output_dir: str | Path,
    job: Job,
    generate: Make[Made],
    rank: int = 0,
    world: int = 1,
    write: Write[Made] | None = None,
) -> bool:
    """Make what is missing of process `rank`'s shards; True if the data set is then whole.

    write: default in the job's formats, for which `generate` has to make samples.

    A shard is written under a temporary name, moved into place, and only then marked as done with size, time and
    sha256 of its files: a process that is killed at any moment costs its unfinished shards and nothing else. Processes
    on one file system need not know of each other; should two make the same shard, they write the same bytes. Every
    one holds a lock on the folder that keeps other jobs out.

    What was done before is looked at first, see `Stamp.fault`: shards of which a file is missing, emptied or changed
    are made again, and so are the index files. A changed file is kept under `.cascade/changed`; files that users
    added are left alone.
    """
    output = Path(output_dir)
    with shared(output, "cascade generate"):
        job = check_same(output, job)
        write = write or _writer(job)
        remove_dead(output / STATE / "partial")
        missing = [shard for shard in range(rank, job.shards, world) if not _is_done(output, shard, tell=True)]
        bar = tqdm(total=sum(len(job.numbers(shard)) for shard in missing), desc="generating", unit="image")
        for shard in missing:
            if _is_done(output, shard):  # another process has made it meanwhile
                bar.update(len(job.numbers(shard)))
            else:
                _make(output, job, shard, generate, write, bar)
        bar.close()
        return _finish(output, job)


def _make(output: Path, job: Job, shard: int, generate: Make[Made], write: Write[Made], bar: "tqdm[NoReturn]") -> None:
    """Make one shard, put its files in place, and mark it as done."""
    numbers = job.numbers(shard)
    with scratch(output / STATE / "partial", f"{shard:06d}-") as place:
        partial = place / "files"
        partial.mkdir()
        records = []
        for number, sample in zip(numbers, generate(job.seed, numbers), strict=True):
            records.append(write(sample, number, partial))
            bar.update()
        mark = Mark(tuple(records), stamps_of(partial))
        for name, stamp in mark.files.items():
            keep_aside(output, name, stamp)
            (output / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(partial / name, output / name)
        mark.save(place / "mark.json")
        _mark(output, shard).parent.mkdir(exist_ok=True)
        os.replace(place / "mark.json", _mark(output, shard))


def _is_done(output: Path, shard: int, tell: bool = False) -> bool:
    """Whether a shard is marked and all its files are as they were written; what is wrong is logged."""
    mark = Mark.load(_mark(output, shard))
    return mark is not None and not faults(output, mark.files, tell=tell)


def _writer(job: Job) -> Write[Any]:
    """Writes a sample in the job's formats, and a preview beside the first."""
    writer = job.writer()

    def write(sample: Sample, number: int, folder: Path) -> SampleRecord:
        if number == 0:
            sample_preview(sample, folder / "preview.png")
        return writer.write(sample, number, folder)

    return write


def progress(output_dir: str | Path, job: Job) -> tuple[int, int]:
    """Shards done, and shards in all."""
    return sum(_mark(Path(output_dir), shard).is_file() for shard in range(job.shards)), job.shards


def again(
    output_dir: str | Path, job: Job, generate: Make[Made], number: int, write: Write[Made] | None = None
) -> Path:
    """Make one sample again and compare it, file by file, with what was recorded and with the files that are there.

    Returns the folder of the new files, `.cascade/again`. Raises ValueError, naming files, if any byte differs, and
    for a number that the set does not have; `files.Busy` if another process is making one again.
    """
    output = Path(output_dir)
    if not 0 <= number < job.num_images:
        raise ValueError(f"there is no sample {number}: {output} holds 0 to {job.num_images - 1}")
    mark = Mark.load(_mark(output, number // job.shard_size))
    if mark is None:
        raise ValueError(f"sample {number} is not there yet: run 'cascade generate' again to finish {output}")
    folder = output / STATE / "again"
    with one_at_a_time(output / STATE / "again.lock"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (sample,) = generate(job.seed, range(number, number + 1))
        (write or _writer(job))(sample, number, folder)
        made = stamps_of(folder)
    other = [name for name, stamp in made.items() if not mark.knows(name, stamp)]
    changed = [(name, replace(stamp, mtime_ns=UNKNOWN).fault(output / name)) for name, stamp in made.items()]
    there = [f"{name} is {fault}" for name, fault in changed if fault]
    if other or not made:
        raise ValueError(
            f"sample {number} differs from what was recorded when it was made ({', '.join(other[:SHOWN])}): another "
            "machine, version or library?"
        )
    if there:
        raise ValueError(
            f"sample {number} is made as it was, but {', '.join(there[:SHOWN])} in {output}: the same command "
            "without --only mends it"
        )
    return folder


def folder_sha256(folder: str | Path, *, few_steps: bool = False) -> str:
    """One hash of a model's files, configs and weights, by name and content; what a training left beside it is not
    looked at, and weights for few steps only where they are used."""
    digest = hashlib.sha256()
    files = (p for p in Path(folder).rglob("*") if p.suffix in (".json", ".safetensors"))
    for path in sorted(p for p in files if few_steps or p.name != FEW_STEPS):
        if any(part.startswith(("checkpoint-", "training_", STATE)) for part in path.relative_to(folder).parts):
            continue
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(file_sha256(path).encode())
    return digest.hexdigest()


def _finish(output: Path, job: Job) -> bool:
    """Write the index files once every shard is there, or where one of them is not as it was written."""
    if not all(_mark(output, shard).is_file() for shard in range(job.shards)):
        return False
    with one_at_a_time(output / STATE / "finishing.lock"):
        marks = [Mark.load(_mark(output, shard)) for shard in range(job.shards)]
        records = [record for mark in marks if mark is not None for record in mark.records]
        if None in marks:
            return False
        known = {name for mark in marks if mark is not None for name in mark.files}
        index = _load_index(output)
        older = any(stamp.size == UNKNOWN for mark in marks if mark is not None for stamp in mark.files.values())
        if index and not faults(output, index, tell=True):
            return True
        before = _others(output, known)
        if older and not index and _seems_whole(before):
            return True  # versions that did not know sizes kept no stamps of index files either
        for name, stamp in index.items():
            keep_aside(output, name, stamp)
        made_by: dict[str, Any] = {"made_by": f"cascade-microscopy {job.version}", "model": job.model}
        job.writer().finish(output, records, made_by | {"seed": job.seed, **job.settings})
        made = {name for name, stat in _others(output, known).items() if before.get(name) != stat} | index.keys()
        _save_index(output, sorted(made))
    remove_dead(output / STATE / "partial")
    return True


def _others(output: Path, known: Iterable[str]) -> dict[str, tuple[int, int, int]]:
    """Inode, time and size of all files that are of no shard."""
    names = set(names_in(output)).difference(known)
    stats = {name: (output / name).stat() for name in names if (output / name).is_file()}
    return {name: (stat.st_ino, stat.st_mtime_ns, stat.st_size) for name, stat in stats.items()}


def _seems_whole(others: dict[str, tuple[int, int, int]]) -> bool:
    """Whether the index files that every format has are there, none of them empty."""
    return all(others.get(name, (0, 0, 0))[2] for name in _INDEXED)


def _load_index(output: Path) -> dict[str, Stamp]:
    """Stamps of the index files; none where they are not known, and the files are then written again."""
    path = output / STATE / _INDEX
    try:
        return stamps_from_json(read_record(path, "").get("files"), path, "")
    except (FileNotFoundError, BrokenRecord):
        return {}


def _save_index(output: Path, names: Iterable[str]) -> None:
    stamps = {name: Stamp.of(output / name) for name in names}
    with replacing(output / STATE / _INDEX) as temporary:
        temporary.write_text(json.dumps({"files": stamps_to_json(stamps)}))


def _mark(output: Path, shard: int) -> Path:
    return output / STATE / "shards" / f"{shard:06d}.json"
