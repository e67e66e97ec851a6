"""The command line: demo, prepare, thin, train, fit, tune, simulate, sketch, generate, validate, …"""

import importlib
import sys
from typing import TYPE_CHECKING

from cascade import __version__
from cascade.commands.table import COMMANDS, GOES_ON
from cascade.entry import UsageError, exit_code

if TYPE_CHECKING:
    from cascade.commands.options import Flags

STAGES = {
    "mask": "train_mask_ddpm",
    "multiview": "train_multiview",
    "ldm": "train_ldm",
    "controlnet": "train_controlnet",
    "distilled": "train_distilled",
    "sketch": "train_sketch_ddpm",
    "distilled-sketch": "train_distilled_sketch",
    "gan": "train_gan",
}


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code, see `exit_code`."""
    words = sys.argv[1:] if argv is None else argv
    name = words[0] if words else ""
    if not words or name in ("-h", "--help"):
        where = sys.stdout if words else sys.stderr
        return exit_code(lambda: print(_overview(), file=where), "cascade") or (0 if words else 2)
    if name == "--version":
        print(f"cascade-microscopy {__version__}")
        return 0
    if name == "train":
        return exit_code(lambda: _train(words[1:]), "cascade train", kept="checkpoints are kept: go on with "
                         "--resume_from_checkpoint latest", smaller="give a smaller --train_batch_size")  # fmt: skip
    if name == "simulate":
        return _simulate(words[1:])
    if name not in COMMANDS:
        known = ", ".join([*COMMANDS, "train", "simulate"])
        print(f"cascade: there is no command {name}; there are {known}", file=sys.stderr)
        return 2
    command = COMMANDS[name]
    flags: list[Flags] = []  # none as long as they are being imported

    def run() -> None:
        flags.append(flags_of(name))
        settings = flags[0].parse(words[1:])
        if settings is not None:
            command.run(*settings)

    return exit_code(
        run,
        f"cascade {name}",
        kept=command.kept,
        smaller=command.smaller,
        said=lambda message: flags[0].in_flags(message) if flags else message,
    )


def flags_of(name: str) -> "Flags":
    """The flags of a command other than `train`."""
    from cascade.commands.options import Flags

    command = COMMANDS[name]
    return Flags(name, command.more or command.about, tuple(map(_class, command.settings)))


def _overview() -> str:
    lines = [f"  {name:10}{command.about}" for name, command in COMMANDS.items()]
    lines.insert(4, f"  {'train':10}train a stage ({', '.join(STAGES)}); the same as training/train_*.py")
    lines.insert(6, f"  {'simulate':10}make annotations without images: of an organism, or of labels that exist")
    return "\n".join(
        [
            "usage: cascade COMMAND …",
            "Densely annotated microscopy data sets from sparse annotations.",
            "",
            *lines,
            "",
            "cascade COMMAND --help says more, and --config FILE.yaml holds any of its settings. cascade --version",
        ]
    )


def _class(path: str) -> type:
    module, _, name = path.rpartition(".")
    found: type = getattr(importlib.import_module(module), name)
    return found


def _train(words: list[str]) -> None:
    stages = f"cascade train takes a stage and its flags: {', '.join(STAGES)}"
    if words[:1] in (["-h"], ["--help"]):
        print(f"usage: {stages}; cascade train STAGE --help lists them")
        return
    if not words or words[0] not in STAGES:
        raise UsageError(f"there is no stage {words[0]}; {stages}" if words else stages)
    from cascade.training.script import run

    run(importlib.import_module(f"cascade.training.{STAGES[words[0]]}").main, words[1:])


def _simulate(words: list[str]) -> int:
    """`simulate`, whose flags are those of the organism that is named first; returns the exit code."""
    flags: list[Flags] = []

    def run() -> None:
        from cascade.commands.organism import simulation

        simulation(words, flags)

    return exit_code(
        run,
        "cascade simulate",
        kept=GOES_ON,
        smaller="give a smaller --canvas_size",
        said=lambda message: flags[0].in_flags(message) if flags else message,
    )


if __name__ == "__main__":
    sys.exit(main())
