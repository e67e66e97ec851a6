"""Crops as tensors, for training."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cascade.data.frames import DataError
from cascade.optics.statistics import FILE_NAME, Statistics


class CropDataset(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """The crops of one or more `cascade prepare` folders in memory; indexed by a list, it gives a batch.

    Batches hold image (B, 1, H, W) float32 in [−1, 1] after the window of its own data set, mask (B, 1, H, W)
    float32 in {0, 1}, brightness (B,) float32 in [0, 1] after the same window, relative_height (B,), and noise_sd (B,),
    the camera noise of the data set in units of the image.

    max_relative_height: leave out crops that are cut farther from their cells' middles, 1 being their tips; but not of
    cells that lie in one layer, which are all cut alike. any_pixel_size: whether folders may differ in it.

    With several folders, a smaller one is repeated until it counts at least a quarter of the largest. `fingerprint` is
    a hash of all that batches are made of.
    """

    def __init__(
        self,
        folders: Sequence[str | Path] | str | Path,
        *,
        max_relative_height: float = 1e9,
        any_pixel_size: bool = False,
    ):
        folders = [folders] if isinstance(folders, str | Path) else list(folders)
        if not folders:
            raise DataError("data is missing: name one or more folders of 'cascade prepare'")
        self.statistics = [Statistics.load(folder) for folder in folders]
        parts = [_load(folder, s, max_relative_height) for folder, s in zip(folders, self.statistics, strict=True)]
        sizes = {part["image"].shape[-2:] for part in parts}
        pixels = [part.pop("pixel_size_um") for part in parts]
        for part, statistics, pixel in zip(parts, self.statistics, pixels, strict=True):
            part["noise_sd"] = torch.full((len(part["image"]),), 2 * statistics.noise_sd(pixel))
        if len(sizes) > 1:
            raise DataError(f"crops of different sizes in {folders}: prepare them with one --crop_size")
        if not any_pixel_size and not np.allclose(pixels, pixels[0], rtol=0.01):
            raise DataError(
                f"{', '.join(map(str, folders))}: crops of {', '.join(f'{one:g}' for one in pixels)} µm per pixel: "
                "prepare them with one --pixel_size_um"
            )
        self.pixel_size_um = pixels[0]
        self.columns = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
        counts = [len(part["image"]) for part in parts]
        order, start = [], 0
        for count in counts:
            repeats = max(round(max(counts) / 4 / count), 1)
            order += list(range(start, start + count)) * repeats
            start += count
        self.order = torch.tensor(order)
        digest = hashlib.sha256(self.order.numpy().data)
        for key, column in sorted(self.columns.items()):
            digest.update(key.encode())
            digest.update(column.contiguous().numpy().data)
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, indices: list[int]) -> dict[str, torch.Tensor]:
        rows = self.order[torch.as_tensor(indices)]
        batch = {key: column[rows] for key, column in self.columns.items()}
        batch["image"] = batch["image"].float()
        batch["mask"] = batch["mask"].float()
        return batch


def crop_size_of(folder: Path) -> int:
    """Pixels of the crops in a folder of `cascade prepare`. Raises DataError where there are none."""
    import pyarrow.parquet

    file = next(iter(sorted(folder.glob("data/*.parquet"))), None)
    if file is None:
        raise DataError(f"{folder}: holds no crops (data/*.parquet); make them with 'cascade prepare'")
    features = json.loads(pyarrow.parquet.read_schema(file).metadata[b"huggingface"])["info"]["features"]
    return int(features["mask"]["shape"][0])


def _load(folder: str | Path, statistics: Statistics, max_relative_height: float) -> dict[str, Any]:
    import datasets  # heavy; only needed here
    import pyarrow.parquet

    files = sorted(str(p) for p in Path(folder).glob("data/*.parquet"))
    if not files:
        raise DataError(f"{folder}: holds no crops (data/*.parquet); make them with 'cascade prepare'")
    arrow = datasets.table.InMemoryTable(pyarrow.parquet.read_table(files))  # from_parquet would copy it to a cache
    table = datasets.Dataset(arrow).with_format("numpy")[:]
    keep = (np.abs(table["relative_height"]) <= max_relative_height) | bool(statistics.middles_um)
    if not keep.any():
        raise DataError(f"{folder}: no crop is within --max_relative_height {max_relative_height}; raise it")
    window = statistics.window
    images, masks = np.stack(table["image"][keep]), np.stack(table["mask"][keep]) > 0
    rows = np.flatnonzero(keep)
    empty = ~masks.any((1, 2))
    if empty.any():
        raise DataError(
            f"{folder}: crops {rows[empty][:5].tolist()} have no mask: make them anew with 'cascade prepare'"
        )
    outside = ((images > window.high) & masks).sum((1, 2)) > 0.5 * masks.sum((1, 2))
    if outside.mean() > 0.05:  # a few very bright cells are cut off by every window
        raise DataError(
            f"{folder}: crops {rows[outside][:5].tolist()} are brighter than the window of {FILE_NAME} "
            f"({window.low:g} to {window.high:g}): crops and statistics are of different images, prepare them together"
        )
    return {
        "image": torch.from_numpy(2 * window.stretch(images) - 1)[:, None].half(),
        "mask": torch.from_numpy(masks)[:, None],
        "brightness": torch.from_numpy(window.stretch(table["brightness"][keep])),
        "relative_height": torch.from_numpy(table["relative_height"][keep].astype(np.float32)),
        "pixel_size_um": float(table["pixel_size_um"][0]),
    }
