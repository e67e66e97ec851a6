"""How a training script begins and ends: settings from YAML and flags, one line for a mistake."""

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin

from cascade.entry import exit_code
from cascade.training.loop import TrainingDiverged
from cascade.training.settings import Made

_MODE = "yaml of settings"  # in which jsonargparse reads


def parse(settings: type[Made], description: str | None, argv: list[str] | None = None) -> Made:
    """An instance of the dataclass `settings`, from `--config FILE.yaml` and flags named like its fields.

    description: of the script, whose first line the help shows.
    Flags win over the file; unknown keys and missing values end the program with one line that names them. Raises
    ValueError for values that cannot be trained with.
    """
    from jsonargparse import ArgumentParser, get_loader, set_loader
    from yaml import YAMLError

    lists = {f.name: get_args(f.type)[0] for f in dataclasses.fields(settings) if get_origin(f.type) is tuple}
    yaml = get_loader("yaml")
    set_loader(_MODE, lambda text: _as_flags(yaml(text), set(lists)), exceptions=(YAMLError,))
    parser = ArgumentParser(description=(description or "").partition("\n")[0], allow_abbrev=False, parser_mode=_MODE)
    defaults = {f.name: f.default for f in dataclasses.fields(settings)}
    parser.add_argument("--config", action="config", help="YAML file with any of the settings below")
    parser.add_class_arguments(settings, skip=set(lists))
    for name, kind in sorted(lists.items()):  # --data A B, as well as a YAML list
        given: dict[str, Any] = {"required": True} if name == "data" else {"default": _listed(defaults[name])}
        parser.add_argument(f"--{name}", nargs="+", type=kind, **given)
    parser.error = _told  # type: ignore[method-assign,assignment]
    switches = {f"--{f.name}" for f in dataclasses.fields(settings) if f.type is bool}
    values = parser.parse_args(_switched_on(sys.argv[1:] if argv is None else argv, switches)).as_dict()
    values.pop("config", None)
    return settings(**values)


def _as_flags(given: Any, lists: set[str]) -> Any:
    """What a YAML file says, as flags would: one value where there may be several, and the word `no`, which YAML takes
    for false."""
    if not isinstance(given, dict):
        return given
    one = {name: [value] for name, value in given.items() if name in lists and isinstance(value, str | int | float)}
    no = {"mixed_precision": "no"} if given.get("mixed_precision") is False else {}
    return given | one | no


def _listed(value: Any) -> Any:
    """jsonargparse writes into the default of a flag with several values."""
    return list(value) if isinstance(value, tuple) else value


def _told(message: str, error: Exception | None = None) -> NoReturn:
    """End with one line, where jsonargparse would write the usage."""
    sys.exit(f"{Path(sys.argv[0]).name}: {' '.join(message.split())}")


def _switched_on(argv: list[str], switches: set[str]) -> list[str]:
    """`--push_to_hub` alone means `--push_to_hub true`."""
    given = []
    for word, following in zip(argv, [*argv[1:], "--"], strict=True):
        given += [word, "true"] if word in switches and following.startswith("--") else [word]
    return given


def run(main: Callable[[list[str] | None], None], argv: list[str] | None = None) -> None:
    """Run a script's `main`; a mistake in the input ends the program with one line and code 1, Ctrl-C with 130."""
    code = exit_code(
        lambda: main(argv),
        Path(main.__code__.co_filename).stem,
        kept="stopped before the training began",
        smaller="give a smaller --train_batch_size",
        mistakes=(TrainingDiverged,),
    )
    if code:
        sys.exit(code)
