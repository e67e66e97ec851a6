"""What a data set is made of, kept with it: begun once, and gone on with by the same job only."""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cascade.export.formats import DataSetWriter
from cascade.export.save import MARK
from cascade.files import STATE, BrokenRecord, Busy, create_once, exclusive, read_record, replacing
from cascade.locks import unwritable
from cascade.ownership import is_free

_KIND = "shards"  # kept by the marks of the shards, not by a list of files


@dataclass(frozen=True)
class Job:
    """What a data set is made of: equal jobs make equal bytes.

    settings: arguments of `CascadePipeline.generate` (of the bank its size), dtype, compile, tiles, and the hash of the
    region. model_sha256: of the model's files; `model` is what it was called when the data set was begun, and may be
    called otherwise later.
    """

    model: str = field(compare=False)
    model_sha256: str
    version: str
    seed: int
    num_images: int
    shard_size: int
    formats: tuple[str, ...]
    frames_per_sequence: int
    meshes: bool
    settings: dict[str, Any]

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

    Of several that begin at once one is recorded, and the others are refused. Raises FileExistsError if the folder
    holds something else, ValueError if it holds a data set of another job, `files.Busy` if one is being made,
    `files.BrokenRecord` if it cannot be read what it holds.
    """
    output = Path(output_dir)
    job.writer()
    if not _is_begun(output):
        if (output / MARK).is_file():
            raise FileExistsError(f"{output}: holds a finished data set; name another folder, or remove it")
        if not is_free(output, _KIND):
            raise FileExistsError(f"{output}: holds something else than a data set; name another folder")
        _begin(output, job)
    before = load_job(output)
    if before != job and not _has_shards(output):
        before = _replace(output, job)
    if before != job:
        raise ValueError(
            f"{output}: holds a data set made with other {', '.join(_changed(before, job))}; name another folder, or "
            "remove it"
        )


def check_same(output: Path, job: Job) -> Job:
    """The job as it was recorded; raises ValueError if another one took the folder before anything was made."""
    recorded = load_job(output)
    if recorded != job:
        changed = ", ".join(_changed(recorded, job))
        raise Busy(f"{output}: another process has begun a data set with other {changed} there; name another folder")
    return recorded


def load_job(output_dir: str | Path) -> Job:
    """The job of a folder; raises FileNotFoundError if it has none, `files.BrokenRecord` if it cannot be read."""
    path = _path(Path(output_dir))
    if not path.is_file():
        raise FileNotFoundError(f"{output_dir}: not made by 'cascade generate' ({STATE}/job.json is missing)")
    mend = "restore the file, or name another folder"
    record = read_record(path, mend)
    names = {name: type_ for name, type_ in _TYPES.items() if not isinstance(record.get(name), type_)}
    if names or record.keys() != _TYPES.keys():
        odd = sorted(names | dict.fromkeys(record.keys() ^ _TYPES.keys()))
        raise BrokenRecord(f"{path}: is of another version, or was changed ({', '.join(odd)}); {mend}")
    return Job(**record | {"formats": tuple(record["formats"])})  # type: ignore[arg-type]


_TYPES = {
    "model": str, "model_sha256": str, "version": str, "seed": int, "num_images": int, "shard_size": int,
    "formats": list, "frames_per_sequence": int, "meshes": bool, "settings": dict,
}  # fmt: skip


def _path(output: Path) -> Path:
    return output / STATE / "job.json"


def _is_begun(output: Path) -> bool:
    try:
        return _path(output).is_file()
    except OSError as error:  # a name that is too long
        raise unwritable(output, error) from error


def _begin(output: Path, job: Job) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
        create_once(_path(output), _text(job))
    except OSError as error:
        raise unwritable(output, error) from error


def _has_shards(output: Path) -> bool:
    return any((output / STATE / "shards").glob("*.json"))


def _replace(output: Path, job: Job) -> Job:
    """Put a job in the place of one that has made nothing yet: a mistake was mended. Returns the one that holds."""
    with exclusive(output, "cascade generate"):
        if not _has_shards(output):
            shutil.rmtree(output / STATE / "bank", ignore_errors=True)
            with replacing(_path(output)) as temporary:
                temporary.write_text(_text(job))
        return load_job(output)


def _text(job: Job) -> str:
    return json.dumps(asdict(job), indent=1)


def _changed(before: Job, job: Job) -> list[str]:
    """Names of what differs, as users call it."""
    new, old = ({**record.pop("settings"), **record} for record in (asdict(job), asdict(before)))
    names = [name.removesuffix("_sha256") for name in new | old if new.get(name) != old.get(name) and name != "model"]
    return list(dict.fromkeys(names))
