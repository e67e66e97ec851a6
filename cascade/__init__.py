"""Cascade: densely annotated microscopy data sets from sparse annotations, with cascaded diffusion models."""

import importlib
import sys
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "CascadePipeline": "cascade.pipelines.cascade",
    "MaskDDPMPipeline": "cascade.pipelines.mask_ddpm",
    "MultiviewPipeline": "cascade.pipelines.multiview",
    "TexturePipeline": "cascade.pipelines.texture",
    "SketchPipeline": "cascade.pipelines.sketch_ddpm",
    "ConditionalGANPipeline": "cascade.pipelines.conditional_gan",
    "Annotation": "cascade.annotation",
    "CellRecord": "cascade.annotation",
    "Sample": "cascade.annotation",
    "CascadeSettings": "cascade.population.settings",
    "PaintingSettings": "cascade.diffusion.painting",
    "QualitySettings": "cascade.gan.painting",
    "SketchSettings": "cascade.sketch.settings",
    "draw_sketch": "cascade.sketch.draw",
    "sketch_of_image": "cascade.sketch.draw",
    "fit_sketch": "cascade.data.sketches",
    "nuclei": "cascade.simulators.nuclei",
    "NucleiSettings": "cascade.simulators.nuclei",
    "celegans": "cascade.simulators.celegans",
    "CElegansSettings": "cascade.simulators.celegans",
    "tribolium": "cascade.simulators.tribolium",
    "TriboliumSettings": "cascade.simulators.tribolium",
    "zebrafish": "cascade.simulators.zebrafish",
    "ZebrafishSettings": "cascade.simulators.zebrafish",
    "stemcells": "cascade.simulators.stemcells",
    "StemCellSettings": "cascade.simulators.stemcells",
    "hela": "cascade.simulators.hela",
    "HeLaSettings": "cascade.simulators.hela",
    "meristem": "cascade.simulators.meristem",
    "MeristemSettings": "cascade.simulators.meristem",
    "tissue": "cascade.simulators.tissue",
    "TissueSettings": "cascade.simulators.tissue",
    "embedded": "cascade.hub.embedded",
    "prepare": "cascade.data.prepare",
    "PrepareSettings": "cascade.data.settings",
    "thin": "cascade.data.thin",
    "ThinSettings": "cascade.data.settings",
    "validate": "cascade.data.validate",
    "ValidateSettings": "cascade.data.settings",
    "fit": "cascade.commands.fit",
    "FitSettings": "cascade.commands.settings",
    "fit_arrays": "cascade.commands.fit_arrays",
    "FitState": "cascade.commands.fit_arrays",
    "generate_samples": "cascade.generation.samples",
    "evaluate": "cascade.evaluation.experiment",
    "EvaluateSettings": "cascade.evaluation.settings",
    "Grid": "cascade.geometry.grid",
    "Volume": "cascade.geometry.grid",
    "voxelize": "cascade.geometry.grid",
}
__all__ = ["__version__", *_PUBLIC]
_looked = False  # at what else uses the cores


def __getattr__(name: str) -> Any:
    # Public names are imported on first use, so that `import cascade` and `cascade --help` stay free of torch.
    if name not in _PUBLIC:
        raise AttributeError(f"module 'cascade' has no attribute {name!r}")
    global _looked
    if not _looked:
        from cascade.waiting import wait_as_others_allow

        _looked = True
        wait_as_others_allow(too_late="torch" in sys.modules)
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
