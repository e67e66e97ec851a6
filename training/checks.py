"""Settings that cannot be trained with are refused where they are made."""

import math
from collections.abc import Sequence
from pathlib import Path

PREDICTIONS = ("epsilon", "sample", "v_prediction")


def at_least(least: int, settings: object, *names: str) -> None:
    """Raise ValueError for a field of `settings` that is no number of at least `least`."""
    for name in names:
        value = getattr(settings, name)
        if not least <= value < math.inf:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def positive(settings: object, *names: str) -> None:
    """Raise ValueError for a field of `settings` that is no finite number above 0."""
    for name in names:
        value = getattr(settings, name)
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be a number above 0, got {value}")


def one_of(known: Sequence[str], settings: object, *names: str) -> None:
    """Raise ValueError for a field of `settings` that is none of `known`."""
    for name in names:
        value = getattr(settings, name)
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")


def levels(settings: object, *names: str) -> None:
    """Raise ValueError for a network's arguments without the channels of its levels."""
    for name in names:
        if not getattr(settings, name).get("block_out_channels"):
            raise ValueError(f"{name} needs block_out_channels, one number of channels a level, as in the configs")


def folders(output_dir: str, data: Sequence[str] = (), base_model: str = "") -> None:
    """Raise ValueError unless the folder to write is another than those that are read."""
    output = Path(output_dir).resolve()
    if output in [Path(folder).resolve() for folder in data]:
        raise ValueError(f"output_dir {output_dir} is the folder of the crops: name another for what is trained")
    if base_model and output == Path(base_model).resolve():
        raise ValueError(f"output_dir {output_dir} is the base_model itself: name another for what is trained")
