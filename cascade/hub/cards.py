"""Model cards: what a stage was trained on and how, as the Hub shows it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cascade.optics.statistics import Statistics


class Origin(NamedTuple):
    """Of images without statistics: the data set, and its licence."""

    source: str
    licence: str


def write_card(
    folder: Path,
    title: str,
    load: str | None,
    data: Sequence[Statistics | Origin],
    settings: dict[str, Any],
    loss: float,
    base_model: str | None = None,
    preview: Path | None = None,
    metrics: dict[str, float] | None = None,
) -> None:
    """Write `README.md` with front matter into a stage's folder.

    load: the name of the pipeline class; None for a base model of `train_controlnet.py`.
    data: statistics of the crops, or the origin of images, whose source and licence are carried over.
    settings: of the training; loss: the last that was logged. preview: a picture in `folder`. metrics: of the samples
    drawn at the end.
    """
    sources = "".join(f"- {s.source}, licence: {s.licence}\n" for s in data) or "- none: made-up shapes only\n"
    picture = f"![samples]({preview.name})\n\n" if preview else ""
    base = f"\nFinetuned from {_public(base_model)}; its licence holds as well.\n" if base_model else ""
    usage = (
        f"""```python
from cascade import {load}

pipeline = {load}.from_pretrained("this folder or repository")
```"""
        if load
        else "`accelerate launch training/train_controlnet.py --base_model THIS_FOLDER --data CROPS …`"
    )
    rows = "".join(f"| {name} | {value:.3f} |\n" for name, value in (metrics or {}).items())
    measured = (
        f"## Metrics\n\nOf the samples drawn at the end of the training.\n\n| | |\n|---|---|\n{rows}\n" if rows else ""
    )
    kept = {
        k: v for k, v in settings.items() if k not in ("output_dir", "data", "hub_model_id", "resume_from_checkpoint")
    }
    if kept.get("base_model"):
        kept["base_model"] = _public(kept["base_model"])
    (folder / "README.md").write_text(
        f"""---
library_name: diffusers
license: {settings.get("model_license", "other")}
tags: [microscopy, cell-segmentation, synthetic-data, cascade-microscopy]
---
# {title}

{picture}{usage}

## Data

{sources}{base}
{measured}## Recipe

{settings["max_train_steps"]} steps of {settings["train_batch_size"]}, last logged loss {loss:.4f}.

```json
{json.dumps(kept, indent=1)}
```
"""
    )


def _public(model: str) -> str:
    """A repository's id as it is; of a local folder the end of its path, which says nothing about the machine."""
    return "/".join(Path(model).parts[-2:]) if Path(model).exists() else model


def write_cascade_card(folder: Path, statistics: Statistics) -> None:
    """Write the `README.md` of a whole cascade, unless there is one."""
    if (folder / "README.md").is_file():
        return
    shape = "×".join(map(str, statistics.image_shape))
    spacing = " × ".join(f"{s:g}" for s in statistics.spacing_um)
    preview = "![a generated sample](preview.png)\n\n" if (folder / "preview.png").is_file() else ""
    (folder / "README.md").write_text(
        f"""---
library_name: diffusers
license: other
tags: [microscopy, cell-segmentation, synthetic-data, cascade-microscopy]
---
# Annotated {statistics.ndim}D images like {statistics.source}

{preview}```python
from cascade import CascadePipeline

pipeline = CascadePipeline.from_pretrained("this folder or repository")
sample = pipeline().samples[0]  # sample.image, sample.labels, sample.spacing_um, sample.cells
```

Made from {statistics.source} (licence of the images: {statistics.licence}): images of {shape} voxels of
{spacing} µm with {sum(statistics.cells_per_image) / len(statistics.cells_per_image):.0f} cells on average,
sizes and light of {len(statistics.cell_area_um2)} annotated ones. The stages in `mask`, `texture` and, in 3D,
`multiview` can be loaded on their own.
"""
    )
