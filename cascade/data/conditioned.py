"""Patches of real images and of annotations, in pairs or not, for the conditional GAN."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cascade.annotation import Annotation
from cascade.data.frame_checks import check_range
from cascade.data.label_sets import find_labels
from cascade.data.patches import fit_window
from cascade.data.seen import look_at
from cascade.data.sketches import LOOKED_AT, fit_sketch
from cascade.evenly import evenly
from cascade.gan.condition import Condition, condition_of, condition_of_image, position_of, seen
from cascade.geometry.slices import matched_slices
from cascade.optics.window import Window
from cascade.reading import DataError
from cascade.rng import stream
from cascade.sketch.settings import SketchSettings, Structure

log = logging.getLogger(__name__)

_MANY = 1 << 20  # patches of an epoch, and images that are looked at
_SAME_SPACING = 0.02  # relative difference of voxel sizes that rounding makes

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class AnnotatedImages:
    """Real images, each with its annotation, and annotations that belong to none of them."""

    images: list[Array]
    paths: list[Path]
    own: list[Annotation]
    """Of the images: labels that are there, else cells that are found in them."""
    others: list[Annotation]
    """None, where the images' own are learnt."""
    sketch: SketchSettings
    """Fitted to the images."""
    window: Window

    @property
    def spacing_um(self) -> tuple[float, ...]:
        """Voxel size of all."""
        return self.own[0].spacing_um


def read_annotated(
    source: str | Path,
    annotations: str | Path | None = None,
    *,
    truth: str = "gt",
    sequences: Sequence[str] = (),
    spacing_um: Sequence[float] = (),
    structure: Structure | None = None,
    gamma: float = 0.5,
) -> AnnotatedImages:
    """Read images, their labels, or else cells that `detect` finds (of membranes `detect_tissue`), and annotations of a
    folder of their own, in any layout of `find_labels`.

    structure: default membranes where labelled cells fill the image and their borders are brighter, or where raw
    images show them. Raises DataError for annotations of other voxel sizes or dimensions than the images, and what
    `look_at` does.
    """
    found = look_at(
        source,
        truth=truth,
        sequences=sequences,
        spacing_um=spacing_um,
        most=_MANY,
        whole=False,
        structure=structure,
    )
    if found.paths is None:
        raise DataError(f"{source}: labels without images; name the folder that holds the images")
    images = list(found.images() or ())
    for path, image in zip(found.paths, images, strict=True):
        check_range(path, image)
    if len(images) == 1:
        log.warning("%s: one image, which a discriminator soon knows by heart: keep the augmentation on", source)
    own = [Annotation.of_labels(matched_slices(_unsigned(labels)), found.spacing_um) for labels in found.labels]
    some = evenly(len(images), LOOKED_AT)
    kind = structure or found.structure
    looked_at = [images[n] for n in some], [found.labels[n] for n in some]
    sketch = fit_sketch(*looked_at, spacing_um=found.spacing_um, structure=kind)
    others = [] if annotations is None else _others(Path(annotations), truth, found.spacing_um)
    return AnnotatedImages(
        images=images,
        paths=found.paths,
        own=own,
        others=others,
        sketch=sketch,
        window=fit_window(images, gamma),
    )


class ConditionedPatches(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Patches of images and of annotations in memory; indexed by a list, it gives a batch.

    Batches hold image, annotation and, with `position`, image_position and annotation_position, (B, 1, *patch_size)
    float32 in [−1, 1]; see `condition_of` and `position_of`. Where data has no `others`, an annotation is that of the
    image beside it. Patch n depends on `seed` and n alone; every image is as likely as any other, and every place in it
    (paper: "only one randomly located patch is extracted from each of the images" in each epoch). `fingerprint` is a
    hash of all that batches are made of.

    Raises DataError for images or annotations of other axes than the patch, or smaller.
    """

    def __init__(
        self,
        data: AnnotatedImages,
        patch_size: Sequence[int],
        *,
        condition: Condition = "binary",
        position: bool = True,
        alpha: float = 100.0,
        beta: float = 100.0,
        seed: int = 0,
        length: int = _MANY,
    ):
        self.patch_size, self.seed, self.length = tuple(int(n) for n in patch_size), seed, length
        for path, image in zip(data.paths, data.images, strict=True):
            self._check(str(path), image.shape)
        for number, one in enumerate(data.others):
            self._check(f"annotation {number}", one.labels.shape)
        self.images: dict[str, list[Array]] = {"image": [seen(one, data.window) for one in data.images]}
        pairs = zip(data.own, data.images, strict=True)
        own = (condition, data.sketch, data.window)
        self.pairs = not data.others
        self.annotations: dict[str, list[Array]] = {
            "annotation": [condition_of_image(one, image, *own) for one, image in pairs]
            if self.pairs
            else [condition_of(one, *own, stream(seed, "sketch", n)) for n, one in enumerate(data.others)]
        }
        if position:
            self.images["image_position"] = [position_of(one, alpha, beta) for one in data.own]
            there = (
                self.images["image_position"] if self.pairs else [position_of(one, alpha, beta) for one in data.others]
            )
            self.annotations["annotation_position"] = there
        digest = hashlib.sha256(repr((self.patch_size, seed, length, condition, data.window)).encode())
        for name, volumes in (self.images | self.annotations).items():
            digest.update(name.encode())
            for volume in volumes:
                digest.update(repr(volume.shape).encode())
                digest.update(np.ascontiguousarray(volume).data)
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        rows = [self._sample(int(index)) for index in indices]
        return {name: torch.from_numpy(np.stack([row[name] for row in rows]))[:, None] for name in rows[0]}

    def _sample(self, index: int) -> dict[str, Array]:
        number, region = self._place("image", index, self.images["image"])
        found = {name: volumes[number][region] for name, volumes in self.images.items()}
        if not self.pairs:
            number, region = self._place("annotation", index, self.annotations["annotation"])
        return found | {name: volumes[number][region] for name, volumes in self.annotations.items()}

    def _place(self, name: str, index: int, volumes: Sequence[Array]) -> tuple[int, tuple[slice, ...]]:
        rng = stream(self.seed, "patch", name, index)
        number = int(rng.integers(len(volumes)))
        corner = [int(rng.integers(n - m + 1)) for n, m in zip(volumes[number].shape, self.patch_size, strict=True)]
        return number, tuple(slice(c, c + m) for c, m in zip(corner, self.patch_size, strict=True))

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        if len(shape) != len(self.patch_size):
            raise DataError(f"{name}: of shape {shape}, for patches of {self.patch_size}: give as many axes as it has")
        if any(have < want for have, want in zip(shape, self.patch_size, strict=True)):
            raise DataError(
                f"{name}: of shape {shape}, smaller than a patch of {self.patch_size}: make patch_size smaller"
            )


def _others(folder: Path, truth: str, spacing_um: tuple[float, ...]) -> list[Annotation]:
    """Annotations of a folder, at the images' voxel size; where it says none, they are taken to be so."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; name the folder that holds the annotations")
    found = []
    for file in find_labels(folder, truth):
        one, origin = file.annotation()
        if one.ndim != len(spacing_um):
            raise DataError(f"{file.path}: {one.ndim} axes, and the images have {len(spacing_um)}: give as many")
        if origin == "assumed":
            one = Annotation.of_labels(one.labels, spacing_um)
        elif not np.allclose(one.spacing_um, spacing_um, rtol=_SAME_SPACING):
            here, there = (" × ".join(f"{s:g}" for s in lengths) for lengths in (one.spacing_um, spacing_um))
            raise DataError(f"{file.path}: voxels of {here} µm, and the images' are of {there}: resample the labels")
        found.append(one)
    return found


def _unsigned(labels: Array) -> Array:
    return labels if labels.dtype.kind == "u" else labels.astype(np.uint32)
