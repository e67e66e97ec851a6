"""Images and their labels, found by name: side by side in one folder, or in a folder each."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from cascade.data.listing import foreign, images_in, names_of, one_each, stem_of
from cascade.data.outlines import is_outlines
from cascade.ngff import is_zarr, labels_in
from cascade.reading import DataError

Pair = tuple[str, Path, Path]
"""The frame's name, its image and its labels."""

IMAGE_FOLDERS = ("images", "imagestr", "image")
"""Where images of their own folder lie, in lower case: StarDist's, QuPath's and nnU-Net's users have these."""

_LABEL_FOLDERS = {
    "images": ("masks", "labels", "mask", "outlines", "annotations", "rois"),
    "image": ("mask", "masks", "labels", "label"),
    "imagestr": ("instancestr", "labelstr"),  # the first is what this package writes: cells, not classes
}
ANY_CHANNEL = "*"
"""Of images of several, where the labels alone are wanted."""
_MASK_TAGS = ("_masks", "_cp_masks")  # the second is what Cellpose's own window writes
_IMAGE_TAGS = ("", "_img")  # the second is how Cellpose names its own data set, 000_img.png
NEAR_TAGS = ("_mask", "_label", "_labels", "_seg", "_gt")
"""Of masks named otherwise, in lower case."""

_OUTLINE_TAGS = ("", "_rois", "_RoiSet", "_outlines", *_MASK_TAGS, *NEAR_TAGS)  # the second is Cellpose's
_PICKLE = "_seg.npy"
_PART = re.compile(r"(.+)_(\d{4})$")  # nnU-Net's case and channel, from 0000


def find_pairs(source: Path, channel: str | None = None) -> tuple[list[Pair], int]:
    """The annotated images of a folder, and how many there have no annotation.

    `x.tif` goes with `x_masks.tif` or `x_cp_masks.tif` beside it, else with the outlines `x.geojson` (QuPath), `x.zip`,
    `x_rois.zip` or `x.roi` (ImageJ); or `images/x.tif` with any of these in `masks/`, `labels/`, `outlines/` or
    `rois/`, where the name alone will do; or `imagesTr/x_0000.tif` with `instancesTr/x.tif`, else `labelsTr/x.tif`.
    An OME-Zarr image `x.ome.zarr` may hold its labels itself. Pairs may lie in `stacks/` or, if there is none, in
    `train/`, as this package writes them for Cellpose.
    channel: of nnU-Net's, which keeps each in a file of its own, one by its number from 1.

    Raises DataError where nothing annotated is found, where labels have no image or an image has two of them, and for
    labels that were saved as a pickle, which is never opened.
    """
    if is_zarr(source):
        return _pairs_of([source])
    for place in (source, source / "stacks", source / "train"):
        if place.is_dir() and (beside := _beside(place))[0]:
            return beside
    for name in IMAGE_FOLDERS:
        if (images := _folder(source, name)) is None:
            continue
        known = [found for one in _LABEL_FOLDERS[name] if (found := _folder(source, one)) and _labels_in(found)]
        if len(known) > 1 and name != "imagestr":
            raise DataError(f"{source}: {names_of(known)} all hold labels of {images.name}; keep one of them")
        if known:
            return _apart(images, known[0], channel if name == "imagestr" else None)
        if (inside := _pairs_of(images_in(images)))[0]:
            return inside
    raise DataError(f"{source}: no annotated images; {_expected(source)}")


def _beside(source: Path) -> tuple[list[Pair], int]:
    """Pairs within one folder."""
    paths = one_each(images_in(source))
    masks = [p for p in paths if _image_stems(p, _MASK_TAGS)]
    images = {stem_of(p): p for p in paths if not _image_stems(p, _MASK_TAGS)}
    pairs: dict[str, Path] = {}
    for path in masks:
        stems = _image_stems(path, _MASK_TAGS)
        stem = next((s for s in stems if s in images), None)
        if stem is None:
            raise _no_image(path, min(stems, key=len), source)
        _put(pairs, stem, path, images[stem])
    for path in images.values():
        stem = next((s for s in _image_stems(path, NEAR_TAGS) if s in images and s not in pairs), None)
        if stem and stem_of(path) not in pairs:
            right = re.sub("_[a-z]+$", _MASK_TAGS[0], stem_of(path).removesuffix(".ome")) + path.suffix
            raise DataError(
                f"{path}: if these are the labels of {images[stem].name}, rename them to {right}, else move them away"
            )
    inside = _held_labels(images)
    for stem, path in inside.items():
        _put(pairs, stem, path, images[stem])
    pairs |= _outlined(_outlines_in(source), {stem: path for stem, path in images.items() if stem not in pairs})
    _refuse_pickles(source, [stem for stem in images if stem not in pairs])
    return [(stem, images[stem], pairs[stem]) for stem in sorted(pairs)], len(images) - len(pairs)


def _pairs_of(paths: Iterable[Path]) -> tuple[list[Pair], int]:
    """Images with the labels that they hold themselves."""
    images = {stem_of(path): path for path in paths}
    held = _held_labels(images)
    return [(stem, images[stem], held[stem]) for stem in sorted(held)], len(images) - len(held)


def _held_labels(images: Mapping[str, Path]) -> dict[str, Path]:
    """Labels inside OME-Zarr images, by stem. Raises DataError for an image that holds several."""
    held: dict[str, Path] = {}
    for stem, path in images.items():
        try:
            found = labels_in(path) if is_zarr(path) and path.is_dir() else []
        except Exception as error:  # zarr raises many kinds for a broken folder
            raise DataError(f"{path}: cannot be read ({error}); replace the folder") from error
        if len(found) > 1:
            raise DataError(f"{path}: holds several labels, {names_of(found)}; keep one of them")
        if found:
            held[stem] = found[0]
    return held


def _apart(folder: Path, labels: Path, channel: str | None) -> tuple[list[Pair], int]:
    """Pairs of two folders."""
    images = {stem_of(p): p for p in one_each(images_in(folder))}
    if folder.name.lower() == "imagestr":
        images = _cases(folder, images, channel)
    pairs: dict[str, Path] = {}
    for path in one_each(images_in(labels)):
        base = stem_of(path)
        stem = next((s for s in (base, *_image_stems(path, (*_MASK_TAGS, *NEAR_TAGS))) if s in images), None)
        stem = stem or next((s for s in (f"{base}.ome", base.removesuffix(".ome"), f"{base}_img") if s in images), None)
        if stem is None:
            raise _no_image(path, f"{folder.name}/{base}", folder, base)
        _put(pairs, stem, path, images[stem])
    free = {stem: path for stem, path in images.items() if stem not in pairs}
    outlined = _outlines_in(labels)
    pairs |= _outlined(outlined, free)
    lost = [path for path in outlined if path not in pairs.values() and not _stem_for(path, images)]
    if lost:
        raise _no_image(lost[0], f"{folder.name}/{lost[0].stem}", folder, lost[0].stem)
    for place in (labels, folder):
        _refuse_pickles(place, [stem for stem in images if stem not in pairs])
    if not pairs:
        raise DataError(f"{labels}: holds no labels of the images in {folder.name}; name both alike")
    return [(stem, images[stem], pairs[stem]) for stem in sorted(pairs)], len(images) - len(pairs)


def _cases(folder: Path, images: dict[str, Path], channel: str | None) -> dict[str, Path]:
    """nnU-Net's images by case, of the one channel that they have or that was chosen."""
    cases: dict[str, dict[int, Path]] = {}
    for stem, path in images.items():
        found = _PART.fullmatch(stem.removesuffix(".ome"))
        if found is None:
            raise DataError(f"{path}: nnU-Net names the image of case x x_0000{path.suffix}; rename it so")
        cases.setdefault(found[1], {})[int(found[2]) + 1] = path
    if channel is None and (several := next((parts for parts in cases.values() if len(parts) > 1), None)):
        raise DataError(
            f"{next(iter(several.values()))}: one of {len(several)} channels; choose the one that shows the cells with "
            f"`channel`, {', '.join(f'{n} for _{n - 1:04d}' for n in several)}"
        )
    chosen: dict[str, Path] = {}
    for case, parts in cases.items():
        number = next(iter(parts)) if channel in (None, ANY_CHANNEL) else int(channel) if channel.isdecimal() else 0
        if number not in parts:
            raise DataError(f"{folder}: case {case} has no `channel` {channel}; it has {', '.join(map(str, parts))}")
        chosen[case] = parts[number]
    return chosen


def _outlined(outlines: Iterable[Path], images: dict[str, Path]) -> dict[str, Path]:
    """The outlines of images, by stem. Raises DataError for two of one image."""
    pairs: dict[str, Path] = {}
    for path in outlines:
        stem = _stem_for(path, images)
        if stem:
            _put(pairs, stem, path, images[stem])
    return pairs


def _stem_for(outlines: Path, images: dict[str, Path]) -> str | None:
    """The image that outlines are of, by their name."""
    bases = [outlines.stem.removesuffix(tag) for tag in _OUTLINE_TAGS if outlines.stem.endswith(tag)]
    bases += [base.removesuffix(end) for base in bases for end in (".tif", ".tiff", ".png") if base.endswith(end)]
    tried = (base + tag + ome for ome in ("", ".ome") for base in bases for tag in _IMAGE_TAGS)
    return next((stem for stem in tried if stem in images), None)


def _refuse_pickles(folder: Path, stems: Iterable[str]) -> None:
    for stem in stems:
        path = folder / f"{stem}{_PICKLE}"
        if path.is_file():
            raise DataError(
                f"{path}: is a pickle, which may run any code and is never opened; open the image in Cellpose, which "
                f"loads it, and choose File > Save masks as PNG/tif (Ctrl+N): {stem}_cp_masks.png is read"
            )


def _put(pairs: dict[str, Path], stem: str, path: Path, image: Path) -> None:
    if stem in pairs:
        raise DataError(f"{path}: {image} has labels in {pairs[stem]}, too; keep one of them")
    pairs[stem] = path


def _no_image(path: Path, name: str, folder: Path, stem: str | None = None) -> DataError:
    return DataError(f"{path}: there is no image {name}.tif for it{foreign(folder, stem or name)}")


def _image_stems(mask: Path, tags: tuple[str, ...]) -> list[str]:
    """Names that the image of a mask may have, without suffix; none if the mask's ends with no tag."""
    stem = stem_of(mask).removesuffix(".ome")
    bases = [stem.removesuffix(tag) for tag in tags if stem.endswith(tag)]
    return [base + tag + ome for ome in ("", ".ome") for base in bases for tag in _IMAGE_TAGS]


def _outlines_in(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.iterdir()) if is_outlines(p)]


def _labels_in(folder: Path) -> bool:
    return any(images_in(folder)) or bool(_outlines_in(folder)) or any(folder.glob(f"*{_PICKLE}"))


def _folder(source: Path, name: str) -> Path | None:
    """A subfolder, in whatever case its name is written."""
    found = (p for p in sorted(source.iterdir()) if p.name.lower() == name and p.is_dir())
    return next(found, None)


def _expected(source: Path) -> str:
    """How to name a folder without pairs, or what is in it."""
    sequence = source.resolve()
    if any(sequence.with_name(sequence.name + truth).is_dir() for truth in ("_GT", "_ST")):
        return f"name {sequence.parent}, which holds the truth of {sequence.name}, too"
    folders = [p for p in sorted(source.iterdir()) if p.is_dir()]
    inner = next((p for p in folders if any(_folder(p, name) for name in IMAGE_FOLDERS)), None)
    if inner is not None:
        return f"name {inner}, which holds them"
    filled = [p for p in folders if any(images_in(p))]
    if filled:
        return (
            f"they lie in {names_of(filled)}: name the folder of images images, that of their labels masks, or put "
            f"pairs x.tif, x{_MASK_TAGS[0]}.tif into one folder, and name that"
        )
    layouts = f"Cell Tracking Challenge folders (01, 01_GT), images and masks, or pairs x.tif with x{_MASK_TAGS[0]}.tif"
    return f"expected {layouts}{foreign(source)}"
