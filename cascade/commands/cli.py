"""The command line: demo, prepare, thin, train, fit, tune, simulate, generate, validate, evaluate, and the rest."""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cascade.entry import UsageError, exit_code, processes

if TYPE_CHECKING:
    from cascade.commands.options import Flags
    from cascade.commands.settings import AssembleSettings, DemoSettings, FitSettings
    from cascade.data.settings import PrepareSettings, ThinSettings, ValidateSettings
    from cascade.diffusion.painting import PaintingSettings
    from cascade.evaluation.settings import EvaluateSettings, TuneSettings
    from cascade.generation.settings import GenerationSettings, SourceSettings
    from cascade.population.settings import CascadeSettings

STAGES = {
    "mask": "train_mask_ddpm",
    "multiview": "train_multiview",
    "ldm": "train_ldm",
    "controlnet": "train_controlnet",
    "distilled": "train_distilled",
    "sketch": "train_sketch_ddpm",
}
_NOTHING = "nothing was written; the same command starts again"
_GOES_ON = "what is finished is kept, and the same command goes on"


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code, see `exit_code`."""
    words = sys.argv[1:] if argv is None else argv
    name = words[0] if words else ""
    if not words or name in ("-h", "--help"):
        where = sys.stdout if words else sys.stderr
        return exit_code(lambda: print(_overview(), file=where), "cascade") or (0 if words else 2)
    if name == "train":
        return exit_code(lambda: _train(words[1:]), "cascade train", kept="checkpoints are kept: go on with "
                         "--resume_from_checkpoint latest", smaller="give a smaller --train_batch_size")  # fmt: skip
    if name == "simulate":
        return _simulate(words[1:])
    if name not in _COMMANDS:
        known = ", ".join([*_COMMANDS, "train", "simulate"])
        print(f"cascade: there is no command {name}; there are {known}", file=sys.stderr)
        return 2
    command = _COMMANDS[name]
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

    command = _COMMANDS[name]
    return Flags(name, command.more or command.about, tuple(map(_class, command.settings)))


def _overview() -> str:
    lines = [f"  {name:10}{command.about}" for name, command in _COMMANDS.items()]
    lines.insert(3, f"  {'train':10}train a stage ({', '.join(STAGES)}); the same as training/train_*.py")
    lines.insert(5, f"  {'simulate':10}make annotations without images: of an organism, or of labels that exist")
    return "\n".join(
        [
            "usage: cascade COMMAND …",
            "Densely annotated microscopy data sets from sparse annotations.",
            "",
            *lines,
            "",
            "cascade COMMAND --help says more, and --config FILE.yaml holds any of its settings.",
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
        kept=_GOES_ON,
        smaller="give a smaller --canvas_size",
        said=lambda message: flags[0].in_flags(message) if flags else message,
    )


def _demo(settings: "DemoSettings") -> None:
    from cascade.commands.demo import demo

    demo(settings)


def _prepare(settings: "PrepareSettings") -> None:
    from cascade.data.prepare import prepare

    folder = prepare(settings)
    print(f"{folder}: look at preview.png; next: cascade train mask --data {folder} --output_dir model/mask …")


def _thin(settings: "ThinSettings") -> None:
    from cascade.data.thin import thin

    print(f"{thin(settings)}: thinned.json says what was kept")


def _fit(settings: "FitSettings") -> None:
    from cascade.commands.fit import fit

    folder = fit(settings)
    print(f"look at {folder / 'preview.png'}; the model is {settings.output_dir / 'model'}")


def _tune(settings: "TuneSettings") -> None:
    from cascade.commands.tune import tune

    tune(settings)


def _generate(
    settings: "GenerationSettings", images: "CascadeSettings", source: "SourceSettings", how: "PaintingSettings"
) -> None:
    processes()
    from cascade.commands.generate import generate
    from cascade.commands.paint import paint, paints_sketches
    from cascade.generation.load import check_device

    check_device(settings.device)
    if source.given or paints_sketches(settings.model):
        paint(settings, images, source, how)
    else:
        generate(settings, images)


def _validate(settings: "ValidateSettings") -> None:
    from cascade.data.validate import validate

    found = validate(settings)
    for line in found.warnings:
        print(f"look at: {line}")
    for line in found.errors:
        print(f"wrong: {line}")
    if found.errors:
        raise ValueError(f"{settings.folder} is not sound: {len(found.errors)} mistakes in {found.frames} frames")
    spacing = " × ".join(f"{s:g}" for s in found.spacing_um)
    print(f"{settings.folder} is sound: {found.frames} frames, {found.num_cells} cells, {spacing} µm")


def _evaluate(settings: "EvaluateSettings") -> None:
    rank, world = processes()
    from cascade.evaluation.experiment import evaluate

    path = evaluate(settings, rank=rank, world=world)
    if path is None:
        print("this process has done its trainings; the last one to finish, or the same command again, reports")
    else:
        print((settings.output_dir / "table.md").read_text())
        print(f"open {path}")


def _assemble(settings: "AssembleSettings") -> None:
    from cascade.commands.assemble import assemble
    from cascade.hub import folders as hub

    folder = settings.output_dir
    pipeline = assemble(settings)
    print(f"{folder}: look at preview.png and README.md; CascadePipeline.from_pretrained('{folder}') loads it")
    if settings.push_to_hub:
        print(hub.push(pipeline, settings.push_to_hub, cards=folder))


def _doctor() -> None:
    from cascade.commands.doctor import doctor

    doctor()


@dataclass(frozen=True)
class _Command:
    """about: one line. more: instead of it in the command's own help. settings: the classes that `run` takes one of
    each of, not imported before they are needed. kept, smaller: see `exit_code`."""

    about: str
    run: Callable[..., None]
    settings: tuple[str, ...] = ()
    more: str = ""
    kept: str = _GOES_ON
    smaller: str = "ask for less at once, or use a machine with more"


_COMMANDS = {
    "demo": _Command(
        "generate a 2D and a 3D data set from the embedded weights",
        _demo,
        ("cascade.commands.settings.DemoSettings",),
        kept="what is finished is kept; the same command starts again",
    ),
    "prepare": _Command(
        "cut a data set into single-cell crops, and fit its statistics",
        _prepare,
        ("cascade.data.settings.PrepareSettings",),
        kept=_NOTHING,
    ),
    "thin": _Command(
        "copy a data set with fewer annotations, to see how few are enough",
        _thin,
        ("cascade.data.settings.ThinSettings",),
        kept=_NOTHING,
    ),
    "fit": _Command(
        "everything at once: prepare, train, assemble, generate and, with --test, evaluate",
        _fit,
        ("cascade.commands.settings.FitSettings",),
        more="From annotated images to an annotated data set. Interrupted, the same command goes on.",
    ),
    "tune": _Command(
        "find from which time, and how smooth, a model paints sketches best",
        _tune,
        ("cascade.evaluation.settings.TuneSettings",),
        more="Paint sketches of real images, and recommend the earliest t_start that makes them as detailed as these.",
        kept=_NOTHING,
        smaller="give a smaller --num_images",
    ),
    "generate": _Command(
        "make an annotated data set with a trained model",
        _generate,
        (
            "cascade.generation.settings.GenerationSettings",
            "cascade.population.settings.CascadeSettings",
            "cascade.generation.settings.SourceSettings",
            "cascade.diffusion.painting.PaintingSettings",
        ),
        more="Make an annotated data set. Interrupted, the same command goes on where it was; several processes\n"
        "(torchrun --nproc_per_node 4 -m cascade generate …, or --slurm) share the work and give the same bytes.",
        smaller="give a smaller --micro_batch_size or --canvas_size",
    ),
    "validate": _Command(
        "say whether a data set, generated or real, is sound",
        _validate,
        ("cascade.data.settings.ValidateSettings",),
        kept=_NOTHING,
    ),
    "evaluate": _Command(
        "does synthetic data improve segmentation? train on real, synthetic and both; report",
        _evaluate,
        ("cascade.evaluation.settings.EvaluateSettings",),
        more="Train Cellpose on real, synthetic and both, test on real images, and write report.html. What a network\n"
        'reaches that saw none of them, the row "none", is there with --generalist or --pretrained only. Interrupted,\n'
        "the same command goes on where it was; several processes (torchrun --nproc_per_node 2 -m cascade evaluate …)\n"
        "share the trainings.",
    ),
    "assemble": _Command(
        "put trained stages together: one folder to share or to push",
        _assemble,
        ("cascade.commands.settings.AssembleSettings",),
        kept=_NOTHING,
    ),
    "doctor": _Command("say what this installation can do, and what is missing for the rest", _doctor, kept=_NOTHING),
}

if __name__ == "__main__":
    sys.exit(main())
