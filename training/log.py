"""The log of a training, one line of JSON for every step that is logged."""

import json
from collections.abc import Mapping
from pathlib import Path

from cascade.files import replacing

_NAME = "log.jsonl"


def add_to_log(output: Path, step: int, record: Mapping[str, float]) -> None:
    """Append a line."""
    with (output / _NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, **record}) + "\n")


def cut_log(output: Path, start: int) -> None:
    """Take out of the log what a training that was cut off had done beyond the step it goes on from."""
    if (output / _NAME).is_file():
        lines = [line for line in _lines(output) if line["step"] <= start]
        with replacing(output / _NAME) as partial:
            partial.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def last_loss(output: Path) -> float:
    """The loss that was logged last; not a number where none was."""
    lines = _lines(output) if (output / _NAME).is_file() else []
    return lines[-1]["loss"] if lines else float("nan")


def last_step(output: Path) -> int:
    """The step that was logged last; 0 where none was."""
    lines = _lines(output) if (output / _NAME).is_file() else []
    return int(lines[-1]["step"]) if lines else 0


def _lines(output: Path) -> list[dict[str, float]]:
    """The records of a log; a line that a kill cut short is left out."""
    found = []
    for line in (output / _NAME).read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and {"step", "loss"} <= record.keys():
            found.append(record)
    return found
