"""Segmentation networks behind one small function: labelled images in, a function from image to labels out."""

import logging
import os
import tempfile
from dataclasses import dataclass, fields, replace
from importlib import metadata
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from cascade.evaluation.labelled import LabelledImage, drawn_planes, is_shallow, typical_diameter
from cascade.evaluation.multiclass import PLANES, STACKS, MultiClassSettings, multiclass
from cascade.extras import install
from cascade.processor import best_device, fast_bfloat16

_STITCHED = 0.25  # IoU from which two neighbouring slices of a shallow stack show one cell


class Segment(Protocol):
    """A segmenter, trained: from an image, of which it does not look at the labels, to labels of the same shape.

    cellprob_threshold: see `CellposeSettings`; default what it was trained with.
    """

    def __call__(self, one: LabelledImage, /, *, cellprob_threshold: float | None = None) -> npt.NDArray[Any]: ...


@dataclass(frozen=True)
class CellposeSettings:
    """How Cellpose 3 is trained. width: channels by level, its own are (32, 64, 128, 256); half the width trains
    nearly four times as fast; the last has to be 256, its style vector. steps of batch_size crops of crop² pixels.
    diameter_px: that images are scaled to give their cells; Cellpose's own are 30, and 17 for its nuclei model.
    bfloat16: mixed precision where the processor has it, on a CPU nearly three times as fast."""

    width: tuple[int, ...] = (32, 64, 128, 256)
    steps: int = 4000
    batch_size: int = 8
    crop: int = 224
    learning_rate: float = 0.005
    diameter_px: float = 30.0
    bfloat16: bool = False
    planes: int = 400
    """At most so many planes are trained on, drawn at random."""
    cellprob_threshold: float = 0.0
    """Where cells end, of the network's logits, in 3D of their sum over three orientations: lower, cells are larger."""
    masked: bool = False
    """Whether pixels that nobody looked at are left out of the loss, see `masked.known_pixels`."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """adamw, or sgd with Cellpose's momentum of 0.9."""

    def __repr__(self) -> str:
        """As of a dataclass; `optimizer` only where it is another, so that trainings of before keep their name."""
        shown = [one.name for one in fields(self) if one.name != "optimizer" or self.optimizer != "adamw"]
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"


NARROW = CellposeSettings(width=(16, 32, 64, 256), steps=600, crop=128, bfloat16=True)
"""For two cores: seven to nine minutes a training on one of them, while another runs beside it."""

NARROW_3D = replace(NARROW, diameter_px=17.0, planes=1600)
"""The same for stacks, whose cells are smaller and whose three orientations are thousands of planes."""

WIDE = replace(NARROW, width=CellposeSettings.width)
"""Cellpose's own width, trained as the narrow one."""

SGD = replace(NARROW, steps=500, learning_rate=0.2, optimizer="sgd")
"""The narrow network by plain stochastic gradient descent at Cellpose's own rate for it: learns less in its steps, so
that data on which only a careful training succeeds show here."""


def cellpose3(
    data: list[LabelledImage],
    settings: CellposeSettings,
    seed: int,
    *,
    pretrained: str | bool = False,
    diameter_px: float | None = None,
) -> tuple[Segment, object]:
    """Train Cellpose 3 on annotated images; returns a function from image to labels, and the model itself.

    Planes are used as they are; of stacks all xy planes and, resampled to equal spacing, xz and yz planes. A stack is
    segmented in Cellpose's 3D mode, a shallow one slice by slice (`is_shallow`). pretrained: a Cellpose model to start
    from; False: from scratch. diameter_px: of the cells to be found, where they are not as large as those trained on.
    Raises ValueError if no plane shows a cell, ImportError with the extra's name if Cellpose is not installed.
    """
    need_cellpose(3)
    import torch
    from cellpose import models, train
    from cellpose.resnet_torch import CPnet

    from cascade.evaluation.masked import train_masked

    images, labels = drawn_planes(data, settings.planes, seed)
    device = torch.device(best_device())
    model = models.CellposeModel(
        gpu=device.type == "cuda", device=device, pretrained_model=pretrained, diam_mean=settings.diameter_px
    )
    if not pretrained:
        with torch.random.fork_rng(devices=[]):  # layers are initialised from this stream, which is left as it was
            torch.default_generator.manual_seed(seed)
            net = CPnet([2, *settings.width], 3, sz=3, max_pool=True, diam_mean=settings.diameter_px)
        model.net, model.net_ortho = net.to(model.device), None  # one network for all three orientations
    if settings.bfloat16 and fast_bfloat16(model.device):
        _in_bfloat16(model.net)
    if settings.masked:
        train_masked(model.net, images, labels, settings)
    else:
        with tempfile.TemporaryDirectory() as folder:
            train.train_seg(
                model.net,
                images,
                labels,
                channels=[0, 0],
                normalize=False,
                batch_size=settings.batch_size,
                learning_rate=settings.learning_rate,
                SGD=settings.optimizer == "sgd",
                n_epochs=max(settings.steps // 5, 1),
                nimg_per_epoch=5 * settings.batch_size,
                bsize=settings.crop,
                min_train_masks=1,
                save_path=folder,
                save_every=10**9,
            )
    diameter = diameter_px or float(model.net.diam_labels.item())
    return segmenting(model, diameter, settings.cellprob_threshold), model


@dataclass(frozen=True)
class Cellpose4Settings:
    """How Cellpose 4 (Cellpose-SAM) is finetuned from `model`, its name or a file: `steps` of one crop each; rate and
    weight decay as its authors advise. It needs a GPU, and its weights, which it fetches itself."""

    model: str = "cpsam_v2"
    steps: int = 1000
    learning_rate: float = 1e-5
    weight_decay: float = 0.1
    planes: int = 10_000
    cellprob_threshold: float = 0.0


FULL = CellposeSettings(planes=10_000)
"""For a GPU: Cellpose's own width and size of crops."""

SegmenterSettings = CellposeSettings | Cellpose4Settings | MultiClassSettings

PROTOCOLS: dict[str, tuple[SegmenterSettings, ...]] = {
    "narrow": (NARROW, NARROW_3D),
    "wide": (WIDE, replace(NARROW_3D, width=WIDE.width)),
    "sgd": (SGD, replace(SGD, diameter_px=17.0, planes=1600)),
    "full": (FULL, replace(FULL, diameter_px=17.0, planes=1600)),
    "cellpose4": (Cellpose4Settings(), Cellpose4Settings()),
    "multiclass": (PLANES, STACKS),
}
"""How planes and stacks are trained on, by name."""


def cellpose4(
    data: list[LabelledImage], settings: Cellpose4Settings, seed: int, *, diameter_px: float | None = None
) -> tuple[Segment, object]:
    """Finetune Cellpose 4 on annotated images, as `cellpose3` does; it knows cells of any size, and needs to be told
    `diameter_px` only of very large ones."""
    model = _published(4, settings.model)
    from cellpose import train

    images, labels = drawn_planes(data, settings.planes, seed)
    with tempfile.TemporaryDirectory() as folder:
        train.train_seg(
            model.net,
            images,
            labels,
            normalize=False,
            batch_size=1,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            n_epochs=max(settings.steps // 20, 1),
            nimg_per_epoch=min(20, settings.steps),
            min_train_masks=1,
            save_path=folder,
            save_every=10**9,
        )
    return segmenting(model, diameter_px, settings.cellprob_threshold, typical_diameter(data)), model


def trained(
    data: list[LabelledImage], settings: SegmenterSettings, seed: int, *, diameter_px: float | None = None
) -> Segment:
    """A function from image to labels, trained as the settings say whose it is."""
    if isinstance(settings, MultiClassSettings):
        return multiclass(data, settings, seed, diameter_px=diameter_px)[0]
    if isinstance(settings, Cellpose4Settings):
        return cellpose4(data, settings, seed, diameter_px=diameter_px)[0]
    return cellpose3(data, settings, seed, diameter_px=diameter_px)[0]


def published(name: str, diameter_px: float, cellprob_threshold: float = 0.0) -> Segment:
    """A Cellpose model as it was published, of whichever Cellpose is installed: cyto3, nuclei, …; or cpsam_v2, …

    diameter_px: of the cells to be found, which Cellpose 3 needs to know. cellprob_threshold: see `CellposeSettings`.
    """
    model = _published(None, name)
    diameter = diameter_px if _major() == 3 else None
    return segmenting(model, diameter, cellprob_threshold, diameter_px)


def _published(major: int | None, name: str) -> Any:
    need_cellpose(major)
    import torch
    from cellpose import models

    known = getattr(models, "MODEL_NAMES", [])
    if name not in known and not os.path.exists(name):
        raise ValueError(f"the installed Cellpose has no model {name!r}: {', '.join(known)}")
    kind = "model_type" if _major() == 3 and name in known else "pretrained_model"
    device = torch.device(best_device())
    return models.CellposeModel(gpu=device.type == "cuda", device=device, **{kind: name})


def need_cellpose(major: int | None) -> None:
    """Raise ImportError, naming the extra, unless Cellpose is there, of this major version if one is given."""
    extra = "cellpose4" if major == 4 else "cellpose"
    mend = install(extra)
    try:
        found = _major()
    except metadata.PackageNotFoundError as error:
        raise ImportError(f"Cellpose is not installed: {mend}", name="cellpose") from error
    if major is not None and found != major:
        raise ImportError(f"Cellpose {found} is installed, Cellpose {major} is needed: {mend}", name="cellpose")
    for name in ("cellpose.train", "cellpose.models", "cellpose.dynamics", "cellpose.core"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _major() -> int:
    """Of the installed Cellpose's version."""
    return int(metadata.version("cellpose").split(".")[0])


def _in_bfloat16(net: Any) -> None:
    """Let a Cellpose network compute in mixed precision, channels last; it takes and gives float32 as before."""
    import torch

    forward = net.to(memory_format=torch.channels_last).forward

    def mixed(data: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Any]:
        with torch.autocast(data.device.type, torch.bfloat16):
            flows, style, features = forward(data.contiguous(memory_format=torch.channels_last))
        return flows.float(), style.float(), features

    net.forward = mixed


def segmenting(model: Any, diameter: float | None, usual: float, typical_px: float | None = None) -> Segment:
    """A Cellpose model as a function from image to labels, at the `usual` threshold unless another is given.

    typical_px: diameter of a typical cell, where the model is not to be told it.
    """

    def found(one: LabelledImage, /, *, cellprob_threshold: float | None = None) -> npt.NDArray[Any]:
        threshold = usual if cellprob_threshold is None else cellprob_threshold
        return segment(model, one, diameter, cellprob_threshold=threshold, typical_px=typical_px)

    return found


def segment(
    model: Any,
    one: LabelledImage,
    diameter: float | None,
    *,
    cellprob_threshold: float = 0.0,
    typical_px: float | None = None,
) -> npt.NDArray[Any]:
    """Labels of an image by a Cellpose model; `diameter` of a typical cell in pixels, None lets it estimate.

    Stacks in its 3D mode; those less high than a cell is wide (`typical_px`, default the diameter) slice by slice,
    cells of neighbouring slices joined.
    """
    options: dict[str, Any] = {"diameter": diameter, "cellprob_threshold": cellprob_threshold}
    if _major() == 3:
        options["channels"] = [0, 0]  # grey; Cellpose 4 does not ask
    typical_px = diameter if typical_px is None else typical_px
    if typical_px is not None and is_shallow(one, typical_px):
        options |= {"z_axis": 0, "stitch_threshold": _STITCHED}
    elif one.image.ndim == 3:
        anisotropy = one.spacing_um[0] / one.spacing_um[1]
        options |= {"do_3D": True, "z_axis": 0, "anisotropy": anisotropy, "min_size": 50}
    found = model.eval(one.image, **options)[0].astype(np.int32)
    return found.reshape(one.image.shape)  # of a stack of one slice, Cellpose leaves its axis out
