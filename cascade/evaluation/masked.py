"""Training Cellpose 3 on images of which few cells are annotated: a loss that passes over what nobody looked at."""

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from skimage.filters import threshold_otsu
from torch.nn import functional as F

Array = npt.NDArray[Any]

_RING = 0.2  # of a cell's diameter: so far around it is known to be none
_LARGEST_CROP = 1.25  # of its nominal side: crops are enlarged and shrunk by up to a quarter
_WARM_UP, _FALL, _HALVINGS = 10, 50, 10  # epochs of Cellpose's own schedule


def known_pixels(image: Array, labels: Array) -> Array:
    """Where it is known what is there, (Y, X) bool: annotated cells, a ring around each as wide as a fifth of a typical
    diameter, and what is darker than Otsu's threshold, which anyone would mark as background at a glance.

    >>> image, labels = np.zeros((20, 20)), np.zeros((20, 20), int)
    >>> image[2:8, 2:8], image[12:18, 12:18], labels[2:8, 2:8] = 1, 1, 1
    >>> known = known_pixels(image, labels)
    >>> bool(known[4, 4]), bool(known[0, 19]), bool(known[14, 14])
    (True, True, False)
    """
    sizes = np.bincount(labels.ravel())[1:]
    sizes = sizes[sizes > 0]
    dark = image < threshold_otsu(image) if image.min() < image.max() else np.zeros(image.shape, bool)
    if not len(sizes):
        return np.asarray(dark)
    ring = _RING * 2 * float(np.sqrt(np.median(sizes) / np.pi))
    return np.asarray(dark | (ndimage.distance_transform_edt(labels == 0) <= ring))


def windows_around(labels: Array, side: int) -> list[tuple[slice, slice]]:
    """A square of the image around every annotated cell, side × side or as much as the image has, within it.

    >>> labels = np.zeros((50, 80), int)
    >>> labels[2:6, 60:70] = 3
    >>> windows_around(labels, 40)
    [(slice(0, 40, None), slice(40, 80, None))]
    """
    boxes = [box for box in ndimage.find_objects(labels) if box is not None]
    return [
        (_centred(rows, side, labels.shape[0]), _centred(columns, side, labels.shape[1])) for rows, columns in boxes
    ]


def _centred(cell: slice, side: int, length: int) -> slice:
    """So long a part of an axis, about the middle of a cell but within the image."""
    start = min(max((cell.start + cell.stop - side) // 2, 0), max(length - side, 0))
    return slice(start, min(start + side, length))


def train_masked(net: Any, images: list[Array], labels: list[Array], settings: Any) -> None:
    """Train a Cellpose 3 network as `cellpose.train.train_seg` does, in as many steps, with the same augmentation and
    the same two losses, of which only `known_pixels` count, on crops around annotated cells: elsewhere is little to
    learn.

    settings: `CellposeSettings`. net: is trained in place, and told the typical diameter.
    """
    from cellpose import dynamics, transforms
    from cellpose.utils import diameters

    device = net.device
    known = [known_pixels(image, one) for image, one in zip(images, labels, strict=True)]
    whole = [max(diameters(one)[0], 5.0) for one in labels]
    net.diam_labels.data = torch.Tensor([np.mean(whole)]).to(device)
    around = [
        (n, window)
        for n, one in enumerate(labels)
        for window in windows_around(one, int(_LARGEST_CROP * settings.crop * whole[n] / net.diam_mean.item()))
    ]
    images, known = ([several[n][window] for n, window in around] for several in (images, known))
    labels = [labels[n][window].copy() for n, window in around]  # Cellpose counts cells anew, in place
    sizes = np.array([whole[n] for n, _ in around])
    flows = [np.asarray(one[1:], np.float32) for one in dynamics.labels_to_flows(labels, device=device)]
    inputs = [np.stack([image, np.zeros_like(image)]).astype(np.float32) for image in images]
    epochs = max(settings.steps // 5, 1)
    kind: Any = {"adamw": torch.optim.AdamW, "sgd": partial(torch.optim.SGD, momentum=0.9)}[settings.optimizer]
    optimizer = kind(net.parameters(), lr=settings.learning_rate, weight_decay=1e-5)
    for epoch in range(epochs):
        rng = np.random.RandomState(epoch)  # as Cellpose does
        chosen = rng.choice(len(images), 5 * settings.batch_size)
        optimizer.param_groups[0]["lr"] = settings.learning_rate * _rate(epoch, epochs)
        net.train()
        for part in np.split(chosen, 5):
            scale = sizes[part] / net.diam_mean.item()
            draws = rng.randint(2**31)

            def turned(targets: list[Array], part: Array = part, scale: Array = scale, draws: int = draws) -> Any:
                mine, theirs = np.random.RandomState(draws), np.random.get_state()  # noqa: NPY002
                np.random.set_state(mine.get_state())  # noqa: NPY002 - Cellpose draws from it, for both the same
                try:
                    return transforms.random_rotate_and_resize(
                        [inputs[n] for n in part],
                        Y=[targets[n] for n in part],
                        rescale=scale,
                        scale_range=0.5,
                        xy=(settings.crop,) * 2,
                    )[:2]
                finally:
                    np.random.set_state(theirs)  # noqa: NPY002

            seen, target = turned(flows)
            weight = torch.from_numpy(turned([one[None].astype(np.float32) for one in known])[1][:, 0]).to(device)
            loss = masked_loss(net(torch.from_numpy(seen).to(device))[0], torch.from_numpy(target).to(device), weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def masked_loss(made: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Cellpose's loss: half of the squared error of five times the flows, and cross entropy of the cells; means over
    the pixels that are known.

    made: (B, 3, Y, X) flows and logit. target: (B, 3, Y, X) cell and flows. weight: (B, Y, X), 1 where known.
    """
    total = weight.sum().clamp(min=1)
    flow = ((made[:, :2] - 5 * target[:, 1:]).square().mean(1) * weight).sum() / total
    cell = F.binary_cross_entropy_with_logits(made[:, 2], (target[:, 0] > 0.5).float(), reduction="none")
    return 0.5 * flow + (cell * weight).sum() / total


def _rate(epoch: int, epochs: int) -> float:
    """Cellpose's schedule, of 1: up within ten epochs, and, of more than a hundred, halved ten times over the last
    fifty, of more than three hundred over the last hundred."""
    if epoch < _WARM_UP:
        return epoch / (_WARM_UP - 1)
    last = 2 * _FALL if epochs > 300 else _FALL if epochs > 100 else 0
    late = epoch - (epochs - last)
    return 0.5 ** (late // (last // _HALVINGS) + 1) if last and late >= 0 else 1.0
