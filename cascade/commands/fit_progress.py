"""How far a fit is: what its folder remembers between two calls."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cascade.commands.settings import FitSettings
from cascade.files import BrokenRecord, read_record, replacing

RECORD = "fit.json"
"""The file, in the folder that the fit writes."""
_PATHS = ("source", "base_model")  # of a plan: the same folder, however it is written


@dataclass
class Progress:
    """The plan, finished steps, and how many training steps fit into the budget."""

    path: Path
    plan: dict[str, str]
    done: list[str] = field(default_factory=list)
    train_steps: dict[str, int] = field(default_factory=dict)
    contents: str = ""
    """A hash of what the images' folder held as the work began; empty in records of earlier versions."""

    @classmethod
    def load(cls, path: Path, plan: FitSettings) -> "Progress":
        """Of a folder, if it holds this plan's work or none; raises ValueError for another's."""
        free = ("output_dir", "licence", "test", "test_truth", "test_sequences", "skip")  # may be changed on the way
        fixed = {key: str(value) for key, value in vars(plan).items() if key not in free}
        fixed |= {key: _resolved(fixed[key]) for key in _PATHS}
        if not path.is_file():
            return cls(path, fixed)
        mend = "restore it, or begin anew in another folder"
        record = read_record(path, mend)
        before, done, steps = (record.get(name) for name in ("plan", "done", "train_steps"))
        if not isinstance(before, dict) or not isinstance(done, list) or not isinstance(steps, dict):
            raise BrokenRecord(f"{path}: is of another version, or was changed; {mend}")
        before = before | {key: _resolved(str(before.get(key))) for key in _PATHS}
        earlier = {"budget": before.get("budget_minutes"), "simulate": "None", "channel": "None"}  # of other versions
        before = earlier | before
        if plan.crop_size is None and before.get("crop_size") == "64":  # the default of earlier versions
            before["crop_size"] = "None"
        changed = [key for key in fixed if before.get(key) != fixed[key]]
        if changed:
            raise ValueError(
                f"{path.parent} holds the work of another plan (other {', '.join(changed)}): name another folder, "
                "or remove it"
            )
        return cls(path, fixed, done, steps, str(record.get("contents", "")))

    def is_of(self, contents: str) -> bool:
        """Whether the work was begun with these images, as it is where nothing is done yet."""
        if not self.contents or not (self.done or self.train_steps):
            self.contents = contents
        return self.contents == contents

    def finish(self, step: str) -> None:
        self.done.append(step)
        self.save()

    def save(self) -> None:
        record = asdict(self)
        record.pop("path")
        with replacing(self.path) as partial:
            partial.write_text(json.dumps(record, indent=1))


def train_steps(folder: Path) -> dict[str, int]:
    """Of a fit's folder, the steps of each training that it has planned so far. Raises BrokenRecord for a record that
    is none, FileNotFoundError where a fit has not begun."""
    found = read_record(folder / RECORD, "wait until the fit has written it anew").get("train_steps")
    return found if isinstance(found, dict) else {}


def _resolved(path_or_name: str) -> str:
    """One name for a folder, from wherever it is looked at; names of models as they are."""
    return str(Path(path_or_name).resolve()) if Path(path_or_name).exists() else path_or_name
