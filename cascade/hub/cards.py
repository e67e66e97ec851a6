"""Model cards: what a stage was trained on and how, as the Hub shows it."""

import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from cascade.files import STATE
from cascade.optics.statistics import Statistics

log = logging.getLogger(__name__)

LIBRARY = "cascade-microscopy"
"""What loads these models: named so, the Hub shows no other library's way to do it."""

_TAGS = ("microscopy", "cell-segmentation", "synthetic-data", LIBRARY)
_FROM_NOTHING = ("MaskDDPMPipeline", "CascadePipeline", None)  # which are given no annotation
_MADE_UP = "made-up shapes"
_MARK = "<!-- as cascade wrote it: {} -->\n"  # the last line, which the Hub does not show


class Origin(NamedTuple):
    """Of images without statistics: the data set, and its licence."""

    source: str
    licence: str


def licence_id(text: str) -> str | None:
    """A licence as the Hub names it, where a text begins with one that is usual for images; else None.

    >>> licence_id("CC BY-NC-SA 4.0, Doe et al."), licence_id("CC0, BBBC039v1"), licence_id("ask the authors")
    ('cc-by-nc-sa-4.0', 'cc0-1.0', None)
    """
    plain = re.sub(r"[\s_-]+", "-", text.strip().lower())
    if re.match(r"cc-?0\b", plain):
        return "cc0-1.0"
    found = re.match(r"cc-by(-nc-sa|-nc-nd|-nc|-sa|-nd)?-([234]\.[05])\b", plain)
    return f"cc-by{found[1] or ''}-{found[2]}" if found else None


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
    """Write `README.md` with front matter into a stage's folder; one that the tool did not write, or that was changed
    since, is kept under `.cascade/changed`, with a warning.

    load: the name of the pipeline class; None for a base model of `train_controlnet.py`.
    data: statistics of the crops, or the origin of images, whose source and licence are carried over.
    settings: of the training; loss: the last that was logged. preview: a picture in `folder`. metrics: of the samples
    drawn at the end.
    """
    sources = "".join(f"- {s.source}, licence: {s.licence}\n" for s in data) or f"- none: {_MADE_UP} only\n"
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
    private = ("output_dir", "data", "annotations", "hub_model_id", "resume_from_checkpoint")
    kept = {
        k: _public(v) if isinstance(v, str | Path) and str(v) else v for k, v in settings.items() if k not in private
    }
    front = _front(
        title,
        load,
        settings.get("model_license", "other"),
        _bases(base_model),
        _results(metrics or {}, ", ".join(dict.fromkeys(one.source for one in data)) or _MADE_UP, load),
    )
    _write(
        folder,
        front,
        f"""# {title}

{picture}{usage}

## Data

{sources}{base}
{measured}## Recipe

{settings["max_train_steps"]} steps of {settings["train_batch_size"]}, last logged loss {loss:.4f}.

```json
{json.dumps(kept, indent=1)}
```
""",
    )


def write_cascade_card(folder: Path, statistics: Statistics) -> None:
    """Write the `README.md` of a whole cascade; what its stages' cards know of licences, models that they were made
    from, and metrics is told there, too. A card that was there before is dealt with as by `write_card`."""
    shape = "×".join(map(str, statistics.image_shape))
    spacing = " × ".join(f"{s:g}" for s in statistics.spacing_um)
    preview = "![a generated sample](preview.png)\n\n" if (folder / "preview.png").is_file() else ""
    title = f"Annotated {statistics.ndim}D images like {statistics.source}"
    stages = ("mask", "multiview", "texture") if statistics.ndim == 3 else ("mask", "texture")
    known = [found for stage in stages if (found := card_data(folder / stage)) is not None]
    licences = {one.license or "other" for one in known}
    bases = [base for one in known for base in _listed(one.base_model)]
    results = [result for one in known for result in one.eval_results or ()]
    licence = licences.pop() if len(licences) == 1 else "other"
    front = _front(title, "CascadePipeline", licence, list(dict.fromkeys(bases)), results)
    _write(
        folder,
        front,
        f"""# {title}

{preview}```python
from cascade import CascadePipeline

pipeline = CascadePipeline.from_pretrained("this folder or repository")
sample = pipeline().samples[0]  # sample.image, sample.labels, sample.spacing_um, sample.cells
```

Made from {statistics.source} (licence of the images: {statistics.licence}): images of {shape} voxels of
{spacing} µm with {sum(statistics.cells_per_image) / len(statistics.cells_per_image):.0f} cells on average,
sizes and light of {len(statistics.cell_area_um2)} annotated ones. The stages in `mask`, `texture` and, in 3D,
`multiview` can be loaded on their own.
""",
    )


def copy_card(source: str | Path | None, folder: Path) -> None:
    """Write the card of the folder that a stage was loaded from into another, without the pictures that lie beside it.

    A card that was there before is dealt with as by `write_card`. Where the stage has none, no card of another model is
    left, but what the tool never wrote is.
    """
    if source and Path(source).resolve() == folder.resolve():
        return
    if source and not Path(source).is_dir():
        log.warning("%s is gone, and with it the card that says what this model was made from", source)
    card = Path(source) / "README.md" if source else None
    text = _read(card) if card else ""
    _put(folder, re.sub(r"^!\[.*\]\((?!https?:).*\)\n", "", text, flags=re.MULTILINE))


def card_data(folder: Path) -> ModelCardData | None:
    """What a folder's card says in its front matter; None where there is no card, or one that cannot be read."""
    path = folder / "README.md"
    if not path.is_file():
        return None
    try:
        found: ModelCardData = ModelCard.load(path).data
    except Exception:  # whatever a card was changed to
        return None
    return found


def _front(
    title: str, load: str | None, licence: str, bases: Sequence[str], results: Sequence[EvalResult]
) -> ModelCardData:
    return ModelCardData(
        library_name=LIBRARY,
        license=licence,
        license_name="see-data-below" if licence == "other" else None,
        pipeline_tag=_task(load),
        tags=list(_TAGS),
        base_model=list(bases) or None,
        model_name=title if results else None,
        eval_results=list(results) or None,
    )


def _write(folder: Path, front: ModelCardData, text: str) -> None:
    _put(folder, str(ModelCard(f"---\n{front.to_yaml()}\n---\n{text}")))


def _put(folder: Path, text: str) -> None:
    """Make a text the card of a folder, in place of what was there; an empty text only takes away what the tool wrote.
    What was changed since, or is not the tool's, is kept aside."""
    path = folder / "README.md"
    old, new = _read(path), text and _marked(text)
    if old == new:
        return
    if old == _marked(old):
        path.unlink()
    elif old and (new or f"library_name: {LIBRARY}" in old):
        place = folder / STATE / "changed" / path.name
        while place.exists():
            place = place.with_name(place.name + "~")
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
        log.warning("%s is not as the tool wrote it, and makes room: what it held is now in %s", path, place)
    if new:
        path.write_text(new, encoding="utf-8")


def _read(path: Path) -> str:
    """A card, or nothing where there is none."""
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _marked(text: str) -> str:
    """A card with a last line by which `_put` sees whether it was changed.

    >>> _marked("# Cells") == _marked(_marked("# Cells")) != _marked("# Cell") != ""
    True
    """
    plain = re.sub(_MARK.format(r"\w+"), "", text).rstrip("\n") + "\n"
    return plain + _MARK.format(hashlib.sha256(plain.encode()).hexdigest()[:16])


def _results(metrics: Mapping[str, float], data: str, load: str | None) -> list[EvalResult]:
    """As the Hub's table of results has them; what is no number is left out."""
    return [
        EvalResult(
            task_type=_task(load),
            dataset_type=_slug(data),
            dataset_name=data,
            metric_type=_slug(name),
            metric_name=name,
            metric_value=round(float(value), 4),
        )
        for name, value in metrics.items()
        if math.isfinite(value)
    ]


def _task(load: str | None) -> str:
    return "unconditional-image-generation" if load in _FROM_NOTHING else "image-to-image"


def _slug(text: str) -> str:
    """
    >>> _slug("mean area, drawn / real")
    'mean-area-drawn-real'
    """
    return "-".join(re.findall(r"\w+", text.lower()))


def _bases(model: str | None) -> list[str]:
    """The Hub's repositories that a model was made from: itself, or those that the card in its folder names."""
    if not model:
        return []
    if Path(model).is_dir():
        found = card_data(Path(model))
        return [] if found is None else _listed(found.base_model)
    return [model] if re.fullmatch(r"[\w.-]+/[\w.-]+", model) else []  # embedded ones have no owner


def _listed(names: str | list[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())


def _public(name: str | Path) -> str:
    """A repository's id, or any word, as it is; of a local path its end, which says nothing about the machine."""
    return "/".join(Path(name).parts[-2:]) if Path(name).is_absolute() or os.path.exists(name) else str(name)
