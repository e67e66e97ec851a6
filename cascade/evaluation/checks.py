"""What cannot be compared, said before anything is trained."""

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from cascade.evaluation.labelled import LabelledImage
from cascade.evaluation.tissue import typical_voxel

_KINDS = {2: "planes", 3: "stacks"}
_TAKEN = ("none", "real", "both", "real_train", "real_test", "synthetic_test", "generalist", "held_out")


def check_names(synthetic: Iterable[str], sparse: Iterable[str]) -> None:
    """Raise ValueError for names of data sets that are names of something else, or of no file."""
    ends = (" % synthetic", " on synthetic")
    taken = [n for n in synthetic if n in _TAKEN or n.startswith("sparse ") or n.endswith(ends)]
    taken += [n for n in sparse if n in ("both", "masked")]
    if taken:
        raise ValueError(f"{taken[0]!r} is a row or a set of the evaluation's own: give the folder another NAME=FOLDER")
    for name in (*synthetic, *sparse):
        if "/" in name:
            raise ValueError(f"{name!r} is to name files, too: leave out the '/'")


def check_sets(sets: dict[str, list[LabelledImage]], generated: set[str]) -> None:
    """Raise ValueError for sets by name that cannot be compared. Stacks, "real_test", are compared with `generated`
    stacks; what is annotated may be their slices."""
    for name, images in sets.items():
        if len({one.image.ndim for one in images}) > 1:
            raise ValueError(f"{name} holds planes and stacks: give sets of one kind")
        if not any(one.labels.any() for one in images):
            raise ValueError(f"{name}: no image has a labelled cell")
    test = sets["real_test"]
    for name, images in sets.items():
        if name != "real_test":
            check_apart(images, test)
        if name not in ("real_test", "synthetic_test"):
            check_apart(images, sets.get("synthetic_test", []))
        check_kind(name, images[0].image.ndim, test[0], name in generated)


def check_tissue(sets: dict[str, list[LabelledImage]]) -> None:
    """Raise ValueError for sets by name that a segmenter of tissue cannot learn from, or be judged on: it is of planes
    or of stacks, not of slices of these, and has to know how large cells are."""
    test = sets["real_test"]
    for name, images in sets.items():
        check_kind(name, images[0].image.ndim, test[0], generated=True)
        try:
            typical_voxel(images)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


def check_kind(name: str, ndim: int, test: LabelledImage, generated: bool) -> None:
    """Raise ValueError unless images of so many axes can be compared with the test set's."""
    wanted = test.image.ndim
    if ndim > wanted and test.whole is not None:
        raise ValueError(
            f"{name} holds stacks, the test set single slices of stacks: a test needs whole annotated stacks, such as "
            "those of the silver truth (--real_test_truth st, in fit --test_truth st)"
        )
    if ndim > wanted or (ndim < wanted and generated):
        raise ValueError(f"{name} holds {_KINDS[ndim]}, the test set {_KINDS[wanted]}: give {wanted}D sets")


def check_apart(train: list[LabelledImage], test: list[LabelledImage], what: str = "test") -> None:
    """Raise ValueError if a plane, or a slice of the same stack, is in both sets: the test would be worthless. what:
    the second set is called."""
    seen = {digest for one in train for digest in _digests(one)}
    shared = sum(bool(seen & _digests(one)) for one in test)
    if shared:
        raise ValueError(f"{shared} of {len(test)} {what} images are also training images: give sets that are apart")


def _digests(one: LabelledImage) -> set[str]:
    """Of all planes of the file that an image is from; padding, which stacks may share, shows nothing."""
    planes = one.stored[None] if one.stored.ndim == 2 else one.stored
    return {_digest(plane) for plane in planes if plane.min() < plane.max()}


def _digest(plane: npt.NDArray[Any]) -> str:
    """The same for the same grey values, whichever type stores them."""
    integers = plane.dtype.kind in "ui" or bool((plane == np.rint(plane)).all())
    values = np.ascontiguousarray(plane, np.int64 if integers else np.float32)
    return hashlib.sha256(str(values.shape).encode() + values.tobytes()).hexdigest()
