"""The commands of the command line: what each is called, what it takes, and what it does."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cascade.entry import processes

if TYPE_CHECKING:
    from cascade.app.settings import AppSettings
    from cascade.commands.settings import AssembleSettings, DemoSettings, FitSettings, SampleSettings
    from cascade.data.settings import PrepareSettings, ThinSettings, ValidateSettings
    from cascade.diffusion.painting import PaintingSettings
    from cascade.evaluation.settings import EvaluateSettings, TuneSettings
    from cascade.gan.painting import QualitySettings
    from cascade.generation.settings import GenerationSettings, SourceSettings
    from cascade.generation.sketching import SketchingSettings
    from cascade.population.settings import CascadeSettings

_NOTHING = "nothing was written; the same command starts again"
GOES_ON = "what is finished is kept, and the same command goes on"


def _demo(settings: "DemoSettings") -> None:
    from cascade.commands.demo import demo

    demo(settings)


def _sample(settings: "SampleSettings") -> None:
    from cascade.commands.sample import sample

    folder = sample(settings)
    print(f"{folder}: look at preview.png; next: cascade fit {folder} --output_dir my_cells --budget 10")


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
    if (train := folder / "train").is_dir():
        print(f"train Cellpose on it: python -m cellpose --train --dir {train} --min_train_masks 1 --verbose")


def _tune(settings: "TuneSettings") -> None:
    from cascade.commands.tune import tune

    tune(settings)


def _generate(
    settings: "GenerationSettings",
    images: "CascadeSettings",
    source: "SourceSettings",
    sketches: "PaintingSettings",
    quality: "QualitySettings",
) -> None:
    processes()
    from cascade.commands.generate import generate
    from cascade.commands.paint import kind_of, paint
    from cascade.generation.load import check_device

    check_device(settings.device)
    if source.given or kind_of(settings.model) != "cascade":
        paint(settings, images, source, sketches, quality)
    else:
        generate(settings, images)


def _sketch(settings: "SketchingSettings") -> None:
    processes()
    from cascade.commands.sketch import sketch

    sketch(settings)


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


def _app(settings: "AppSettings") -> None:
    from cascade.app.page import serve

    serve(settings)


def _doctor() -> None:
    from cascade.commands.doctor import doctor

    doctor()


@dataclass(frozen=True)
class Command:
    """about: one line. more: instead of it in the command's own help. settings: the classes that `run` takes one of
    each of, not imported before they are needed. kept, smaller: see `exit_code`."""

    about: str
    run: Callable[..., None]
    settings: tuple[str, ...] = ()
    more: str = ""
    kept: str = GOES_ON
    smaller: str = "ask for less at once, or use a machine with more"


COMMANDS = {
    "demo": Command(
        "generate a 2D and a 3D data set from the embedded weights",
        _demo,
        ("cascade.commands.settings.DemoSettings",),
        kept="what is finished is kept; the same command starts again",
    ),
    "sample": Command(
        "draw thirty outlined nuclei to try everything with: cascade sample nuclei30 FOLDER",
        _sample,
        ("cascade.commands.settings.SampleSettings",),
        kept=_NOTHING,
    ),
    "prepare": Command(
        "cut a data set into single-cell crops, and fit its statistics",
        _prepare,
        ("cascade.data.settings.PrepareSettings",),
        kept=_NOTHING,
    ),
    "thin": Command(
        "copy a data set with fewer annotations, to see how few are enough",
        _thin,
        ("cascade.data.settings.ThinSettings",),
        kept=_NOTHING,
    ),
    "fit": Command(
        "everything at once: prepare, train, assemble, generate and, with --test, evaluate",
        _fit,
        ("cascade.commands.settings.FitSettings",),
        more="From annotated images to an annotated data set. Interrupted, the same command goes on.",
    ),
    "tune": Command(
        "find from which time, and how smooth, a model paints sketches best",
        _tune,
        ("cascade.evaluation.settings.TuneSettings",),
        more="Sketches of real images are noised up to several t_start and painted. Recommended is the earliest one\n"
        "at which they have the real images' fine detail and still show what was drawn.",
        kept=_NOTHING,
        smaller="give a smaller --num_images",
    ),
    "generate": Command(
        "make an annotated data set with a trained model",
        _generate,
        (
            "cascade.generation.settings.GenerationSettings",
            "cascade.population.settings.CascadeSettings",
            "cascade.generation.settings.SourceSettings",
            "cascade.diffusion.painting.PaintingSettings",
            "cascade.gan.painting.QualitySettings",
        ),
        more="Make an annotated data set. Interrupted, the same command goes on where it was; several processes\n"
        "(torchrun --nproc_per_node 4 -m cascade generate …, or --slurm) share the work and give the same bytes.",
        smaller="give a smaller --micro_batch_size or --canvas_size",
    ),
    "sketch": Command(
        "draw sketches of annotations, rough pictures without noise, fitted to images",
        _sketch,
        ("cascade.generation.sketching.SketchingSettings",),
        more="Sketches of annotations, to look at: what the sketch DDPM starts from.\n"
        "Interrupted, the same command goes on where it was.",
    ),
    "validate": Command(
        "say whether a data set, generated or real, is sound",
        _validate,
        ("cascade.data.settings.ValidateSettings",),
        kept=_NOTHING,
    ),
    "evaluate": Command(
        "does synthetic data improve segmentation? train on real, synthetic and both; report",
        _evaluate,
        ("cascade.evaluation.settings.EvaluateSettings",),
        more="Train Cellpose, or with --protocol multiclass a segmenter of tissue, on real, synthetic and both, test\n"
        "on real images, with --synthetic_test also on synthetic ones, and write report.html. What a network\n"
        'reaches that saw none of them, the row "none", is there with --generalist or --pretrained only. Interrupted,\n'
        "the same command goes on where it was; several processes (torchrun --nproc_per_node 2 -m cascade evaluate …)\n"
        "share the trainings.",
    ),
    "assemble": Command(
        "put trained stages together: one folder to share or to push",
        _assemble,
        ("cascade.commands.settings.AssembleSettings",),
        kept=_NOTHING,
    ),
    "app": Command(
        "a page in the browser: draw cells, see their image; populations, organisms, your data",
        _app,
        ("cascade.app.settings.AppSettings",),
        more="A page in the browser, served by this machine to itself (extra app).",
        kept="what the page was sent is deleted",
    ),
    "doctor": Command("say what this installation can do, and what is missing for the rest", _doctor, kept=_NOTHING),
}
