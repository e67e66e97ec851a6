"""How a training starts: its folder is claimed, its processes are joined."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration

from cascade.extras import EXTRAS, install
from cascade.files import exclusive
from cascade.memory import keep_freed
from cascade.training.checkpoints import checkpoints
from cascade.training.settings import TrainingSettings, process_number


@contextmanager
def claimed(settings: TrainingSettings) -> Iterator[Path]:
    """The output folder of a training, kept from other trainings until it is left.

    Raises `cascade.files.Busy` where another training is at work there, and what `check_output` does. Ctrl-C becomes
    a KeyboardInterrupt whose message says what was kept.
    """
    first = process_number("RANK", 0) == 0
    process_number("WORLD_SIZE", 1)
    check_output(settings)
    output = Path(settings.output_dir)
    try:
        if first:
            output.mkdir(parents=True, exist_ok=True)
            with exclusive(output, "cascade train"):
                yield output
        else:
            yield output
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_kept(output)) from None


def check_output(settings: TrainingSettings, model: Path | None = None) -> None:
    """Raise FileExistsError for a folder that holds a training, finished or not, that is not to be gone on with.

    model: the file that a finished training has written last, by default the index of a pipeline.
    """
    output, wanted = Path(settings.output_dir), settings.resume_from_checkpoint
    kept, finished = checkpoints(output), (model or output / "model_index.json").is_file()
    if finished and not kept and wanted in (None, "latest"):
        raise FileExistsError(
            f"{output}: holds a training that is finished, and no checkpoint of it: name another --output_dir, or give "
            "the model as --base_model"
        )
    if kept and wanted is None:
        raise FileExistsError(
            f"{output}: holds a training; --resume_from_checkpoint latest goes on with it, or name another --output_dir"
        )
    if (kept or finished) and wanted != "latest" and Path(str(wanted)).resolve().parent != output.resolve():
        raise FileExistsError(
            f"{output}: holds a training, and not that of {wanted}: name the --output_dir that it lies in, or a new one"
        )


def make_accelerator(settings: TrainingSettings) -> Accelerator:
    """The accelerator of a training, with its output folder and tracker.

    Raises ValueError where several processes were started that do not know of each other, the tracker is not
    installed, or the precision needs a GPU, and what `check_output` does.
    """
    check_output(settings)
    keep_freed()
    process_number("RANK", 0)
    processes = process_number("WORLD_SIZE", 1)
    output = Path(settings.output_dir)
    tracker = _tracker(settings.report_to)
    accelerator = Accelerator(
        mixed_precision=settings.mixed_precision,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        log_with=tracker,
        project_config=ProjectConfiguration(str(output), str(output / "logs")),
    )
    if accelerator.num_processes < processes:
        raise ValueError(
            "several processes were started, but without GPUs each would train alone, into the same folder: start one, "
            "or set ACCELERATE_USE_CPU=true"
        )
    if settings.mixed_precision == "fp16" and accelerator.device.type == "cpu":
        raise ValueError("mixed_precision fp16 needs a GPU, and there is none: give bf16 or no")
    if accelerator.is_main_process:
        output.mkdir(parents=True, exist_ok=True)
    if tracker:
        accelerator.init_trackers("cascade")
    return accelerator


def _tracker(report_to: str) -> str | None:
    """The tracker of that name, None for none."""
    if report_to == "auto":
        return "tensorboard" if importlib.util.find_spec("tensorboard") else None
    if report_to == "none":
        return None
    if importlib.util.find_spec(report_to) is None:
        command = install(report_to) if report_to in EXTRAS else f"pip install {report_to}"
        raise ValueError(f"report_to {report_to} needs the package: {command}, or choose none")
    return report_to


def end_phase(accelerator: Accelerator) -> None:
    """Close the logs of a phase that another one follows: `end_training` would part the processes for good."""
    for tracker in accelerator.trackers:
        tracker.finish()


def _kept(output: Path) -> str:
    """What a training that is stopped leaves, and how to go on."""
    folders = sorted(path.parent for path in output.glob("training_*/checkpoint-*"))
    found = [kept[-1] for folder in dict.fromkeys([*folders, output]) if (kept := checkpoints(folder))]
    if not found:
        return f"before the first checkpoint: nothing was kept in {output}; start anew"
    newest = max(found, key=lambda path: path.stat().st_mtime)
    return f"kept: {newest}; the same command with --resume_from_checkpoint latest goes on from there"
