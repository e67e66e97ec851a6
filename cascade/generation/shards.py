"""Generating large data sets in shards: interrupted and resumed at will, by one process or many, to the same bytes."""

import contextlib
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from tqdm.auto import tqdm

from cascade.annotation import Sample
from cascade.export.formats import DataSetWriter
from cascade.export.preview import sample_preview
from cascade.export.records import SampleRecord
from cascade.export.save import MARK, check_replaceable
from cascade.files import own_name, replacing

_STATE = ".cascade"  # job, marks and unfinished shards, inside the data set's folder


@dataclass(frozen=True)
class Job:
    """What a data set is made of: equal jobs make equal bytes.

    settings: arguments of `CascadePipeline.generate` (of the bank its size), dtype, compile, tiles, and the hash of the
    region. model_sha256: of the model's files.
    """

    model: str
    model_sha256: str
    version: str
    seed: int
    num_images: int
    shard_size: int
    formats: tuple[str, ...]
    frames_per_sequence: int
    meshes: bool
    settings: dict

    @property
    def shards(self) -> int:
        """Their number."""
        return -(-self.num_images // self.shard_size)

    def numbers(self, shard: int) -> range:
        """Samples of a shard."""
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, self.num_images))

    def writer(self) -> DataSetWriter:
        """As its formats want it."""
        return DataSetWriter(tuple(self.formats), self.frames_per_sequence, self.meshes)


def start(output_dir: str | Path, job: Job) -> None:
    """Begin or go on with a job in a folder.

    Raises FileExistsError if the folder holds something else, ValueError if it holds a data set of another job.
    """
    output = Path(output_dir)
    job.writer()
    manifest = output / _STATE / "job.json"
    if not manifest.is_file():
        check_replaceable(output)
        if (output / MARK).is_file():
            raise FileExistsError(f"{output}: holds a finished data set; name another folder, or remove it")
        manifest.parent.mkdir(parents=True, exist_ok=True)
        _replace_text(manifest, json.dumps(asdict(job), indent=1))
    before = load_job(output)
    if before != job and not any((output / _STATE / "shards").glob("*.json")):
        shutil.rmtree(output / _STATE / "bank", ignore_errors=True)  # nothing was made yet: a mistake was mended
        _replace_text(manifest, json.dumps(asdict(job), indent=1))
        before = job
    if before != job:
        new, old = ({**record.pop("settings"), **record} for record in (asdict(job), asdict(before)))
        changed = [name for name in new if new[name] != old.get(name)]
        raise ValueError(
            f"{output}: holds a data set made with other {', '.join(changed)}; name another folder, or remove it"
        )


def load_job(output_dir: str | Path) -> Job:
    """The job of a folder; raises FileNotFoundError if it has none."""
    manifest = Path(output_dir) / _STATE / "job.json"
    if not manifest.is_file():
        raise FileNotFoundError(f"{output_dir}: not made by 'cascade generate' ({_STATE}/job.json is missing)")
    record = json.loads(manifest.read_text())
    return Job(**record | {"formats": tuple(record["formats"])})


def run(
    output_dir: str | Path, job: Job, generate: Callable, rank: int = 0, world: int = 1, write: Callable | None = None
) -> bool:
    """Make what is missing of process `rank`'s shards; True if the data set is then whole.

    generate: (seed, numbers) -> samples, which depend on seed and number alone. write: (sample, number, folder) ->
    record, default the job's formats.

    A shard is written under a temporary name, moved into place, and only then marked as done with the sha256 of its
    files: a process that is killed at any moment costs its unfinished shards and nothing else. Processes on one
    file system need not know of each other; should two make the same shard, they write the same bytes.
    """
    output, write = Path(output_dir), write or _writer(job)
    missing = [shard for shard in range(rank, job.shards, world) if not _mark(output, shard).is_file()]
    bar = tqdm(total=sum(len(job.numbers(shard)) for shard in missing), desc="generating", unit="image")
    for shard in missing:
        numbers = job.numbers(shard)
        if not _mark(output, shard).is_file():  # another process may have made it meanwhile
            partial = output / _STATE / "partial" / f"{shard:06d}-{own_name()}"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            records = []
            for number, sample in zip(numbers, generate(job.seed, numbers), strict=True):
                records.append(write(sample, number, partial))
                bar.update()
            files = {str(p.relative_to(partial)): file_sha256(p) for p in sorted(partial.rglob("*")) if p.is_file()}
            for name in files:
                (output / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(partial / name, output / name)
            _replace_text(
                _mark(output, shard), json.dumps({"records": [record.to_json() for record in records], "files": files})
            )
            shutil.rmtree(partial, ignore_errors=True)
        else:
            bar.update(len(numbers))
    bar.close()
    return _finish(output, job)


def _writer(job: Job) -> Callable:
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


def again(output_dir: str | Path, job: Job, generate: Callable, number: int, write: Callable | None = None) -> bool:
    """Make one sample again and compare it with the data set, file by file; True if all bytes are equal.

    The new files are left in `.cascade/again`. Raises ValueError for a number that the set does not have.
    """
    output = Path(output_dir)
    if not 0 <= number < job.num_images:
        raise ValueError(f"there is no sample {number}: {output} holds 0 to {job.num_images - 1}")
    mark = _mark(output, number // job.shard_size)
    if not mark.is_file():
        raise ValueError(f"sample {number} is not there yet: run 'cascade generate' again to finish {output}")
    known = json.loads(mark.read_text())["files"]
    folder = output / _STATE / "again"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (sample,) = generate(job.seed, range(number, number + 1))
    (write or _writer(job))(sample, number, folder)
    files = {str(p.relative_to(folder)): file_sha256(p) for p in folder.rglob("*") if p.is_file()}
    return bool(files) and all(known.get(name) == digest for name, digest in files.items())


def folder_sha256(folder: str | Path) -> str:
    """One hash of a model's files, configs and weights, by name and content; what a training left beside it is not
    looked at."""
    digest = hashlib.sha256()
    for path in sorted(p for p in Path(folder).rglob("*") if p.suffix in (".json", ".safetensors")):
        if any(part.startswith(("checkpoint-", "training_")) for part in path.relative_to(folder).parts):
            continue
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(file_sha256(path).encode())
    return digest.hexdigest()


def _finish(output: Path, job: Job) -> bool:
    """Write the index files once every shard is there. Whoever comes last does it; twice does no harm."""
    marks = [_mark(output, shard) for shard in range(job.shards)]
    if not all(mark.is_file() for mark in marks):
        return False
    if (output / MARK).is_file():
        return True
    parts = [json.loads(mark.read_text()) for mark in marks]
    records = [SampleRecord.of_json(record) for part in parts for record in part["records"]]
    about = {"made_by": f"cascade-microscopy {job.version}", "model": job.model, "seed": job.seed, **job.settings}
    job.writer().finish(output, records, about)
    _remove_leftovers(output / _STATE / "partial")
    return True


def _remove_leftovers(folder: Path) -> None:
    """Unfinished shards of processes of this machine that are no more; those of others are theirs to remove."""
    for partial in folder.glob("*"):
        _, _, owner = partial.name.partition("-")
        host, _, process = owner.rpartition("-")
        if host == socket.gethostname() and not psutil.pid_exists(int(process)):
            shutil.rmtree(partial, ignore_errors=True)
    with contextlib.suppress(OSError):  # not there, or another process is still at work in it
        folder.rmdir()


def _mark(output: Path, shard: int) -> Path:
    return output / _STATE / "shards" / f"{shard:06d}.json"


def _replace_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text)


def file_sha256(path: Path) -> str:
    """Of its bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
