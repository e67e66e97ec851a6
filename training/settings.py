"""What the training scripts share: settings from YAML and the command line, and mistakes that end in one line."""

import dataclasses
import logging
import sys
from pathlib import Path

from jsonargparse import ArgumentParser

from cascade.training.loop import TrainingDiverged, check_output


def parse(settings: type, description: str, argv: list[str] | None = None):
    """An instance of the dataclass `settings`, from `--config FILE.yaml` and flags named like its fields.

    Flags win over the file; unknown keys and missing values end the program with one line that names them. Raises
    FileExistsError if the output folder holds another training.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in ("httpx", "accelerate", "datasets", "diffusers"):
        logging.getLogger(name).setLevel(logging.WARNING)
    parser = ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file with any of the settings below")
    lists = {f.name for f in dataclasses.fields(settings) if f.type == list[str]}
    parser.add_class_arguments(settings, skip=lists)
    for name in sorted(lists):  # --data A B, as well as a YAML list
        parser.add_argument(f"--{name}", nargs="+", type=str, required=True)
    parser.error = lambda message, error=None: sys.exit(f"{Path(sys.argv[0]).name}: {message}")
    switches = {f"--{f.name}" for f in dataclasses.fields(settings) if f.type is bool}
    values = parser.parse_args(_switched_on(sys.argv[1:] if argv is None else argv, switches)).as_dict()
    values.pop("config", None)
    made = settings(**values)
    check_output(made)
    return made


def _switched_on(argv: list[str], switches: set[str]) -> list[str]:
    """`--push_to_hub` alone means `--push_to_hub true`."""
    given = []
    for word, following in zip(argv, [*argv[1:], "--"], strict=True):
        given += [word, "true"] if word in switches and following.startswith("--") else [word]
    return given


def run(main, argv: list[str] | None = None) -> None:
    """Run a script's `main`; a mistake in the input ends the program with one line."""
    try:
        main(argv)
    except (ValueError, OSError, TrainingDiverged) as error:
        sys.exit(f"{main.__module__.split('.')[-1]}: {error}")
