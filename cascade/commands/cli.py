"""The command line: demo, prepare, thin, train, fit, generate, validate, evaluate, assemble, doctor."""

import logging
import os
import sys
from pathlib import Path

from cascade.commands.config import with_config
from cascade.commands.options import STAGES, parser


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code. Mistakes in the input end with one line and code 1."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["train"] and len(argv) > 1 and argv[1] in STAGES:
        return _train(argv[1], argv[2:])
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in ("httpx", "datasets", "diffusers", "matplotlib"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        options = parser().parse_args(with_config(argv) if argv[:1] == ["generate"] else argv)
        _RUN[options.command](options)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        print(f"cascade {argv[0]}: {error}", file=sys.stderr)
        return 1
    return 0


def _prepare(options) -> None:
    from cascade.data.prepare import prepare

    arguments = {key: value for key, value in vars(options).items() if key != "command"}
    folder = prepare(**arguments)
    print(f"{folder}: look at preview.png; next: cascade train mask --data {folder} --output_dir model/mask …")


def _thin(options) -> None:
    from cascade.data.thin import thin

    folder = thin(**{key: value for key, value in vars(options).items() if key != "command"})
    print(f"{folder}: thinned.json says what was kept")


def _fit(options) -> None:
    from cascade.commands.fit import Plan, fit, usual_base

    test = (options.test, options.test_truth, tuple(options.test_sequences)) if options.test else None
    folder = fit(
        Plan(
            source=options.source,
            output_dir=options.output_dir,
            truth=options.truth,
            sequences=tuple(options.sequences),
            crop_size=options.crop_size,
            pixel_size_um=options.pixel_size_um,
            spacing_um=tuple(options.spacing_um),
            sparse=options.sparse,
            licence=options.licence,
            budget_minutes=options.budget,
            base_model=options.base_model or usual_base(options.source, options.truth, options.sequences),
            num_images=options.num_images,
            bank=options.bank,
            seed=options.seed,
            test=test,
            skip=tuple(options.skip),
        )
    )
    print(f"look at {folder / 'preview.png'}; the model is {options.output_dir / 'model'}")


def _train(stage: str, argv: list[str]) -> int:
    import importlib

    from cascade.training.settings import run

    run(importlib.import_module(f"cascade.training.{STAGES[stage]}").main, argv)
    return 0


def _generate(options) -> None:
    import dataclasses

    from cascade.commands.generate import generate
    from cascade.generation.settings import GenerationSettings
    from cascade.population.settings import CascadeSettings

    given = vars(options) | {"format": tuple(options.format)}
    kinds = (GenerationSettings, CascadeSettings)
    made = [kind(**{f.name: given[f.name] for f in dataclasses.fields(kind) if f.name in given}) for kind in kinds]
    generate(*made)


def _validate(options) -> None:
    from cascade.data.validate import validate

    found = validate(options.folder, options.truth, options.sequences)
    for line in found.warnings:
        print(f"look at: {line}")
    for line in found.errors:
        print(f"wrong: {line}")
    if found.errors:
        raise ValueError(f"{options.folder} is not sound: {len(found.errors)} mistakes in {found.frames} frames")
    spacing = " × ".join(f"{s:g}" for s in found.spacing_um)
    print(f"{options.folder} is sound: {found.frames} frames, {found.num_cells} cells, {spacing} µm")


def _named(entries: list[str]) -> dict[str, Path]:
    """[NAME=]FOLDER entries by name: the first is "synthetic", others have their own or their folder's name."""
    found: dict[str, Path] = {}
    for number, entry in enumerate(entries):
        name, given, folder = entry.partition("=")
        if not given or Path(entry).is_dir():
            name, folder = Path(entry).name, entry
        name = name if number else "synthetic"
        if name in found:
            raise ValueError(f"--synthetic {entry}: there is a row {name!r} already; give it as NAME=FOLDER")
        found[name] = Path(folder)
    return found


def _few(entries: list[str]) -> dict[str, Path]:
    """NAME=FOLDER entries of the sparse setting, which needs a real one."""
    pairs = [entry.split("=", 1) for entry in entries]
    found = {pair[0]: Path(pair[-1]) for pair in pairs}
    if entries and ("real" not in found or len(found) < len(pairs) or any(len(pair) < 2 for pair in pairs)):
        raise ValueError("--sparse takes real=FOLDER, synthetic=FOLDER and other NAME=FOLDER, each name once")
    return found


def _evaluate(options) -> None:
    from cascade.evaluation.experiment import evaluate
    from cascade.evaluation.sources import Source

    synthetic = {name: Source(folder, frames=options.frames) for name, folder in _named(options.synthetic).items()}
    real = {
        name: Source(
            getattr(options, name),
            getattr(options, f"{name}_truth"),
            tuple(getattr(options, f"{name}_sequences")),
            options.frames,
            tuple(options.spacing_um),
        )
        for name in ("real_train", "real_test")
    }
    generalist = Source(options.generalist, frames=options.frames) if options.generalist else None
    path = evaluate(
        **real,
        synthetic=synthetic,
        output_dir=options.output_dir,
        generalist=generalist,
        pretrained=options.pretrained,
        protocol=options.protocol,
        steps=options.steps,
        cellprob_threshold=options.cellprob_threshold,
        seeds=options.seeds,
        title=options.title,
        ratios=tuple(options.ratios),
        sparse={name: Source(folder, frames=options.frames) for name, folder in _few(options.sparse).items()},
        rank=int(os.environ.get("RANK", 0)),
        world=int(os.environ.get("WORLD_SIZE", 1)),
    )
    if path is None:
        print("this process has done its trainings; the last one to finish, or the same command again, reports")
    else:
        print((options.output_dir / "table.md").read_text())
        print(f"open {path}")


def _assemble(options) -> None:
    from cascade.commands.assemble import assemble
    from cascade.hub import folders as hub

    folder = options.output_dir
    pipeline = assemble(options.model, folder, options.half)
    print(f"{folder}: look at preview.png and README.md; CascadePipeline.from_pretrained('{folder}') loads it")
    if options.push_to_hub:
        print(hub.push(pipeline, options.push_to_hub, cards=folder))


def _demo(options) -> None:
    from cascade.commands.demo import demo

    demo(options.output_dir, options.seed)


def _doctor(options) -> None:
    from cascade.commands.doctor import doctor

    doctor()


_RUN = {
    "demo": _demo,
    "prepare": _prepare,
    "thin": _thin,
    "fit": _fit,
    "generate": _generate,
    "validate": _validate,
    "evaluate": _evaluate,
    "assemble": _assemble,
    "doctor": _doctor,
}

if __name__ == "__main__":
    sys.exit(main())
