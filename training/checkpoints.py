"""Checkpoints of a training: safetensors with JSON beside them, nothing that has to be unpickled."""

import json
import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

log = logging.getLogger(__name__)

_STATE = "training_state.json"
_VERSION = 1
_PICKLED = (".pkl", ".pickle", ".bin", ".pt", ".pth", ".ckpt")


class CheckpointError(ValueError):
    """A checkpoint that cannot be gone on from; the message names the file and the mend."""


class Stateful(Protocol):
    """Anything that is put away with a checkpoint: nested dicts and lists of tensors, numbers, strings and None."""

    def state_dict(self) -> dict[str, Any]:
        """What to put away; names are strings."""

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any:
        """Take up what was put away; tensors come on the CPU."""


def checkpoints(output: Path) -> list[Path]:
    """The checkpoints in a training's folder, oldest first, damaged ones among them."""
    found = [p for p in output.glob("checkpoint-*") if p.is_dir() and re.fullmatch(r"checkpoint-\d+", p.name)]
    return sorted(found, key=lambda p: int(p.name.split("-")[1]))


def save_checkpoint(
    output: Path, record: Mapping[str, Any], parts: Mapping[str, Stateful], *, step: int, limit: int
) -> Path:
    """Write `checkpoint-STEP`, then drop all but the newest `limit`, and those of later steps, which are of a training
    that was gone on with from an older checkpoint; one process only.

    record: plain values of the whole training, which `read_record` gives back. parts: what is put away, by the names
    of their files. Written under a temporary name and renamed: a full disk never costs the previous checkpoint. Only
    what has the `identity` of the record is dropped; a folder in the way that has another, or none, is kept aside.
    """
    final, partial = output / f"checkpoint-{step}", output / f"partial-checkpoint-{step}"
    remove_partial(output)
    partial.mkdir(parents=True)
    plain = {name: _save(partial / f"{name}.safetensors", part.state_dict()) for name, part in parts.items()}
    whole = {"version": _VERSION, "step": step, **record, "parts": plain}
    (partial / _STATE).write_text(json.dumps(whole, indent=1), encoding="utf-8")
    if final.exists():
        final.rename(output / f"partial-checkpoint-{step}-before" if _is_of(final, record) else _aside(final))
    partial.rename(final)
    found = [path for path in checkpoints(output) if _is_of(path, record)]
    own = found.index(final) + 1
    for old in [*found[:own][:-limit], *found[own:]]:
        old.rename(output / f"partial-{old.name}")  # never seen half removed
    remove_partial(output)
    return final


def remove_partial(output: Path) -> None:
    """Remove what a training that was killed while it wrote or removed a checkpoint has left."""
    for path in output.glob("partial-checkpoint-*"):
        if re.fullmatch(r"partial-checkpoint-\d+(-before)?", path.name):
            shutil.rmtree(path)


def checkpoint_to_resume(output: Path, wanted: str) -> Path | None:
    """The folder that `wanted` names, or the newest checkpoint in `output` for "latest"; None where there is none.

    Raises FileNotFoundError where a named folder is no checkpoint, CheckpointError where it holds pickles.
    """
    if wanted == "latest":
        found = checkpoints(output)
        if not found:
            return None
        folder = found[-1]
    else:
        folder = Path(wanted)
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is no checkpoint; latest finds the newest in {output}")
    pickled = next((p for p in sorted(folder.rglob("*")) if p.suffix.lower() in _PICKLED), None)
    if pickled is not None:
        raise CheckpointError(
            f"{pickled}: pickled, as older versions wrote checkpoints, and never opened, since a pickle may run code: "
            "train anew into another folder, or go on from the finished model as base_model"
        )
    return folder


def read_record(folder: Path) -> dict[str, Any]:
    """The plain values of a checkpoint, `step` among them; raises CheckpointError for one that is damaged."""
    path = folder / _STATE
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing{_mend(folder)}") from None
    except ValueError as error:  # cut, or of another encoding
        raise CheckpointError(f"{path}: cut off or damaged ({error}){_mend(folder)}") from error
    if not isinstance(record, dict) or not isinstance(record.get("step"), int):
        raise CheckpointError(f"{path}: says nothing of a training{_mend(folder)}")
    if record.get("version") != _VERSION:
        raise CheckpointError(
            f"{path}: written by another version (format {record.get('version')}, not {_VERSION}): train anew"
        )
    return record


def load_checkpoint(folder: Path, record: Mapping[str, Any], parts: Mapping[str, Stateful]) -> None:
    """Give `parts` back what `save_checkpoint` put away; raises CheckpointError for files cut or missing."""
    for name, part in parts.items():
        path = folder / f"{name}.safetensors"
        if name not in record["parts"]:
            raise CheckpointError(f"{folder}: has no {name}: it is of a training with other updates or settings")
        try:
            tensors = load_file(path)
            part.load_state_dict(_joined(record["parts"][name], tensors))
        except (FileNotFoundError, SafetensorError, KeyError, RuntimeError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise CheckpointError(f"{path}: missing, cut off or damaged ({reason}){_mend(folder)}") from error


def check_shapes(folder: Path, name: str, network: torch.nn.Module) -> None:
    """Raise CheckpointError unless a checkpoint's weights have the names and shapes of a network's."""
    path = folder / f"{name}.safetensors"
    try:
        with safe_open(path, "pt") as file:
            there = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: missing, cut off or damaged ({error}){_mend(folder)}") from error
    here = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    for key in sorted(there.keys() | here.keys()):
        if there.get(key) != here.get(key):
            raise CheckpointError(
                f"{folder}: of another network, {key} is {there.get(key, 'not there')} and would be "
                f"{here.get(key, 'not there')}: give the settings that it was trained with, or train anew"
            )


def check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise CheckpointError where a checkpoint is of another training than the one that asks for it."""
    if before.get("data") != now["data"] or before.get("samples") != now["samples"]:
        raise CheckpointError(
            f"{folder}: was trained on other data ({before.get('samples')} samples, now {now['samples']}): name the "
            "data that it was trained on, or train anew into another folder"
        )
    before = {"processes": now.get("processes")} | dict(before)  # which earlier versions did not put away
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise CheckpointError(
                f"{folder}: was trained with {name} {before.get(name)!r}, now it is {now.get(name)!r}: give the same, "
                "or train anew into another folder"
            )


def _is_of(folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether a folder is a checkpoint of the training that the record is of, in however many processes."""
    try:
        before = read_record(folder).get("identity") or {}
    except (CheckpointError, OSError):
        return False
    return {**before, "processes": 0} == {**record.get("identity", {}), "processes": 0}


def _aside(folder: Path) -> Path:
    """A free name for a folder that is in the way; says where it will be."""
    place = folder.with_name(folder.name + "-before")
    while place.exists():
        place = place.with_name(place.name + "~")
    log.warning("%s is no checkpoint of this training: what it held is now in %s", folder, place)
    return place


def _mend(folder: Path) -> str:
    older = [str(path) for path in checkpoints(folder.parent) if path != folder]
    return f"; an older checkpoint can be named: {older[-1]}" if older else "; there is no other: train anew"


def _save(path: Path, state: Mapping[str, Any]) -> Any:
    """Write a state's tensors; returns the rest, with the tensors' names in their places."""
    tensors: dict[str, torch.Tensor] = {}
    plain = _split(state, (), tensors)
    try:
        save_file(tensors, path)
    except SafetensorError as error:  # so it calls a full disk, too
        raise OSError(f"{path}: cannot be written ({error})") from error
    return plain


def _split(value: Any, place: tuple[str, ...], tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        name = ".".join(place)
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": name}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"the names in a state must be strings, got {list(value)[:3]} in {'.'.join(place) or 'it'}")
        return {"dict": {key: _split(item, (*place, key), tensors) for key, item in value.items()}}
    if isinstance(value, list | tuple):
        return [_split(item, (*place, str(n)), tensors) for n, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a state holds tensors and plain values, not a {type(value).__name__} ({'.'.join(place)})")


def _joined(plain: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(plain, list):
        return [_joined(item, tensors) for item in plain]
    if isinstance(plain, dict):
        if "tensor" in plain:
            return tensors[plain["tensor"]]
        return {key: _joined(item, tensors) for key, item in plain["dict"].items()}
    return plain
