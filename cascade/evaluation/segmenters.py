"""Segmentation networks behind one small function: labelled images in, a function from image to labels out."""

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

Segment = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class LabelledImage:
    """One annotated image: a plane (Y, X) or a stack (Z, Y, X), its labels, and its voxel size in µm."""

    image: np.ndarray
    labels: np.ndarray
    spacing_um: tuple[float, ...]


@dataclass(frozen=True)
class CellposeSettings:
    """How Cellpose 3 is trained. width: channels by level, its own are (32, 64, 128, 256); half the width trains
    nearly four times as fast; the last has to be 256, its style vector. steps of batch_size crops of crop² pixels.
    diameter_px: that images are scaled to give their cells; Cellpose's own are 30, and 17 for its nuclei model.
    bfloat16: mixed precision, on a CPU nearly three times as fast."""

    width: tuple[int, ...] = (32, 64, 128, 256)
    steps: int = 4000
    batch_size: int = 8
    crop: int = 224
    learning_rate: float = 0.005
    diameter_px: float = 30.0
    bfloat16: bool = False
    planes: int = 400
    """At most so many planes are trained on, drawn evenly."""


NARROW = CellposeSettings(width=(16, 32, 64, 256), steps=600, crop=128, bfloat16=True)
"""For two cores: about four minutes a training on one of them."""

NARROW_3D = replace(NARROW, diameter_px=17.0)
"""The same for stacks, whose cells are smaller and whose three orientations are as many planes."""


def cellpose3(
    data: list[LabelledImage],
    settings: CellposeSettings,
    seed: int,
    pretrained: str | bool = False,
    diameter_px: float | None = None,
) -> tuple[Segment, object]:
    """Train Cellpose 3 on annotated images; returns a function from image to labels, and the model itself.

    Planes are used as they are; of stacks all xy planes and, resampled to equal spacing, xz and yz planes. A stack is
    segmented in Cellpose's 3D mode. pretrained: a Cellpose model to start from; False: from scratch. diameter_px: of
    the cells to be found, where they are not as large as those trained on. Raises ValueError if no plane shows a cell,
    ImportError with the extra's name if Cellpose is not installed.
    """
    try:
        import torch
        from cellpose import models, train
        from cellpose.resnet_torch import CPnet
    except ImportError as error:
        raise ImportError(
            "Cellpose is not installed: pip install 'cascade-microscopy[cellpose]'", name=error.name
        ) from error
    for name in ("cellpose.train", "cellpose.models", "cellpose.dynamics", "cellpose.core"):
        logging.getLogger(name).setLevel(logging.ERROR)
    rng = np.random.default_rng(seed)
    planes = [plane for one in data for plane in training_planes(one) if plane[1].any()]
    if not planes:
        raise ValueError("no training image shows a cell")
    chosen = rng.permutation(len(planes))[: settings.planes]  # the order, and so the seed, decides the batches
    images, labels = ([planes[n][k] for n in chosen] for k in (0, 1))
    model = models.CellposeModel(
        gpu=torch.cuda.is_available(), pretrained_model=pretrained, diam_mean=settings.diameter_px
    )
    if not pretrained:
        with torch.random.fork_rng(devices=[]):  # PyTorch initialises layers from its global stream, left as it was
            torch.manual_seed(seed)
            net = CPnet([2, *settings.width], 3, sz=3, max_pool=True, diam_mean=settings.diameter_px)
        model.net = net.to(model.device)
    if settings.bfloat16:
        _in_bfloat16(model.net)
    per_epoch = 5 * settings.batch_size
    with tempfile.TemporaryDirectory() as folder:
        train.train_seg(
            model.net,
            images,
            labels,
            channels=[0, 0],
            normalize=True,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            n_epochs=max(settings.steps // 5, 1),
            nimg_per_epoch=per_epoch,
            bsize=settings.crop,
            min_train_masks=1,
            save_path=folder,
            save_every=10**9,
        )
    diameter = diameter_px or float(model.net.diam_labels.item())
    return lambda one: segment(model, one, diameter), model


def _in_bfloat16(net) -> None:
    """Let a Cellpose network compute in mixed precision, channels last; it takes and gives float32 as before."""
    import torch

    forward = net.to(memory_format=torch.channels_last).forward

    def mixed(data):
        with torch.autocast(data.device.type, torch.bfloat16):
            flows, style, features = forward(data.contiguous(memory_format=torch.channels_last))
        return flows.float(), style.float(), features

    net.forward = mixed


def segment(model, one: LabelledImage, diameter: float | None) -> np.ndarray:
    """Labels of an image by a Cellpose model; `diameter` of a typical cell in pixels, None lets it estimate."""
    if one.image.ndim == 2:
        return model.eval(one.image, channels=[0, 0], diameter=diameter)[0].astype(np.int32)
    anisotropy = one.spacing_um[0] / one.spacing_um[1]
    found = model.eval(
        one.image, channels=[0, 0], diameter=diameter, do_3D=True, z_axis=0, anisotropy=anisotropy, min_size=50
    )
    return found[0].astype(np.int32)


def typical_diameter(data: list[LabelledImage]) -> float:
    """Of the cells of annotated images in pixels, as Cellpose measures it: the mean of the planes' medians."""
    from cellpose.utils import diameters

    found = np.array([diameters(labels)[0] for one in data for _, labels in training_planes(one)])
    return float(found[found > 0].mean())


def training_planes(one: LabelledImage) -> list[tuple[np.ndarray, np.ndarray]]:
    """Planes of an annotated image with their labels, all of equal spacing: xy, and of stacks also xz and yz.

    Of xz and yz every fourth is taken: neighbours are nearly alike, and there are many.
    """
    if one.image.ndim == 2:
        return [(one.image.astype(np.float32), one.labels.astype(np.int32))]
    stretch = one.spacing_um[0] / one.spacing_um[1]
    image, labels = one.image.astype(np.float32), one.labels.astype(np.int32)
    planes = list(zip(image, labels, strict=True))
    for axis in (1, 2):
        for n in range(0, image.shape[axis], 4):
            plane, label = (np.take(array, n, axis) for array in (image, labels))
            planes.append((ndimage.zoom(plane, (stretch, 1), order=1), ndimage.zoom(label, (stretch, 1), order=0)))
    return planes
