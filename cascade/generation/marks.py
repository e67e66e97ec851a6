"""Marks of finished shards: their records and files, and what has become of these since."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from cascade.export.records import SampleRecord
from cascade.files import BrokenRecord, read_record
from cascade.ownership import UNKNOWN, Stamp, stamps_from_json, stamps_to_json

log = logging.getLogger(__name__)

SHOWN = 10  # faults that are named one by one


@dataclass(frozen=True)
class Mark:
    """What says that a shard is done: the records of its samples, and its files as they were written."""

    records: tuple[SampleRecord, ...]
    files: dict[str, Stamp]

    @classmethod
    def load(cls, path: Path) -> "Mark | None":
        """None if there is none, or one that was cut or changed: the shard then counts as not done."""
        try:
            record = read_record(path, "the shard is made again")
            records = tuple(SampleRecord.of_json(one) for one in record["records"])  # type: ignore[attr-defined]
            return cls(records, stamps_from_json(_with_sizes(record["files"]), path, "the shard is made again"))
        except FileNotFoundError:
            return None
        except (BrokenRecord, KeyError, TypeError, ValueError, AttributeError) as error:
            log.warning("%s: no mark of a finished shard (%s); the shard is made again", path, error)
            return None

    def save(self, path: Path) -> None:
        """Write it to a new file."""
        records = [record.to_json() for record in self.records]
        path.write_text(json.dumps({"records": records, "files": stamps_to_json(self.files)}))

    def knows(self, name: str, stamp: Stamp) -> bool:
        """Whether the shard has this file with these bytes."""
        return name in self.files and self.files[name].sha256 == stamp.sha256


def faults(folder: Path, files: dict[str, Stamp], *, tell: bool) -> list[str]:
    """Files that are missing, emptied or changed; tell: log them."""
    found = [f"{folder / name} is {fault}" for name, stamp in files.items() if (fault := stamp.fault(folder / name))]
    if tell:
        for line in found[:SHOWN]:
            log.warning("%s: made again", line)
        if len(found) > SHOWN:
            log.warning("and %d files more", len(found) - SHOWN)
    return found


def _with_sizes(files: object) -> object:
    """Earlier versions kept only hashes."""
    if not isinstance(files, dict):
        return files
    known = {"size": UNKNOWN, "mtime_ns": UNKNOWN}
    return {name: known | {"sha256": found} if isinstance(found, str) else found for name, found in files.items()}
