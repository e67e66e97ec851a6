"""Trained stages put together into one folder, with a preview and cards: `cascade assemble`."""

from pathlib import Path

import torch

from cascade.commands.settings import AssembleSettings
from cascade.export.preview import sample_preview
from cascade.files import exclusive
from cascade.generation.load import load
from cascade.hub.folders import forget_paths, model_index
from cascade.ownership import is_free, renewing
from cascade.pipelines.cascade import CascadePipeline

_KIND = "model"
_OLDER = (  # what versions without a list of files wrote
    "model_index.json",
    "statistics.json",
    "preview.png",
    *(f"{stage}/{name}" for stage in ("mask", "multiview", "texture") for name in ("model_index.json", "*/*.json")),
    *(f"{stage}/*/*.safetensors" for stage in ("mask", "multiview", "texture")),
)


def assemble(settings: AssembleSettings) -> CascadePipeline:
    """Write the cascade of a folder that the training scripts filled, and return it.

    An earlier model there is replaced once all is written; what users put beside it stays. Raises FileExistsError if
    the output holds something else than a model, ValueError if it is the model's own folder, `files.Busy` if another
    process is at work in it, `hub.ModelError` if a stage is missing.
    """
    output = settings.output_dir
    if output.resolve() == Path(settings.model).resolve():
        raise ValueError(f"{output}: is the folder of the stages themselves; name another folder")
    with exclusive(output, "cascade assemble"):
        if not is_free(output, _KIND, older=model_index(output).get("_class_name") == CascadePipeline.__name__):
            raise FileExistsError(f"{output}: holds something else than a model; name another folder")
        return _assemble(settings.model, output, settings.half)


def _assemble(model: str | Path, output: Path, half: bool) -> CascadePipeline:
    pipeline = load(model)
    sample = pipeline(generator=torch.Generator().manual_seed(0), min_alignment=0.0).samples[0]
    pipeline.to("cpu")
    if half:
        pipeline.to(torch.float16)
    with renewing(output, _KIND, last="model_index.json", older=_OLDER) as partial:
        sample_preview(sample, partial / "preview.png")
        pipeline.save_pretrained(partial)
        forget_paths(partial)
    return pipeline
