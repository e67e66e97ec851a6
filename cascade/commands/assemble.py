"""Trained stages put together into one folder, with a preview and cards: `cascade assemble`."""

from pathlib import Path

import torch

from cascade.commands.settings import AssembleSettings
from cascade.export.preview import sample_preview
from cascade.files import replacing_folder
from cascade.generation.load import best_device
from cascade.hub.folders import forget_paths, without_samples
from cascade.pipelines.cascade import CascadePipeline


def assemble(settings: AssembleSettings) -> CascadePipeline:
    """Write the cascade of a folder that the training scripts filled, and return it.

    The output is replaced whole, once all is written. Raises FileExistsError if it holds
    something else than a model, `hub.ModelError` if a stage is missing.
    """
    output = settings.output_dir
    if output.exists() and any(output.iterdir()) and not (output / "model_index.json").is_file():
        raise FileExistsError(f"{output}: holds something else than a model; name another folder")
    pipeline = CascadePipeline.from_pretrained(settings.model).to(best_device())
    sample = pipeline(generator=torch.Generator().manual_seed(0), min_alignment=0.0).samples[0]
    pipeline.to("cpu")
    if settings.half:
        pipeline.to(torch.float16)
    with replacing_folder(output) as partial:
        sample_preview(sample, partial / "preview.png")
        pipeline.save_pretrained(partial)
        forget_paths(partial)
        for stage in ("mask", "multiview", "texture"):
            card = Path(settings.model, stage, "README.md")
            if card.is_file():
                (partial / stage / "README.md").write_text(without_samples(card.read_text()))
    return pipeline
