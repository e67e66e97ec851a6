"""Weights that come with the package."""

import logging
from pathlib import Path

log = logging.getLogger(__name__)

NAMES = (
    "nuclei2d",
    "nuclei3d",
    "sketch2d",
    "sketch3d",
    "stemcells2d",
    "membrane3d",
    "nuclei3d-gan",
    "membrane3d-gan",
)


def embedded(name: str) -> Path:
    """The folder of an embedded model: "nuclei2d" or "nuclei3d", for `CascadePipeline.from_pretrained`, "sketch2d",
    "sketch3d", "stemcells2d" or "membrane3d", for `SketchPipeline.from_pretrained`, or "nuclei3d-gan" or
    "membrane3d-gan", for `ConditionalGANPipeline.from_pretrained`.

    Raises ValueError for another name, FileNotFoundError if the installation lacks the weights.
    """
    if name not in NAMES:
        raise ValueError(f"no embedded model {name!r}; there are {', '.join(NAMES)}")
    folder = Path(__file__).parents[1] / "assets" / name
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(f"{folder} is not part of this installation: install cascade-microscopy anew")
    return folder


def is_embedded(model: str | Path) -> bool:
    """Whether this names an embedded model; warns of a folder here that has the name, too. A Path that is there is
    meant itself."""
    here = Path(model).is_dir()
    if str(model) not in NAMES or (here and isinstance(model, Path)):
        return False
    if here:
        log.warning("%s is the embedded model; write ./%s for the folder that is called so, too", model, model)
    return True


def stage_of(model: str | Path, stage: str) -> str:
    """What to load a stage ("mask", "multiview", "texture") from, where a whole cascade was named: an embedded one or a
    folder; anything else as it is."""
    folder = embedded(str(model)) if is_embedded(model) else Path(model)
    return str(folder / stage) if (folder / stage).is_dir() else str(model)
