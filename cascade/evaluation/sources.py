"""Annotated data sets on disk, as labelled images to train and test on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from cascade.data.frames import DataError, check_pair, find_frames, spacing_of
from cascade.data.statistics import FILE_NAME
from cascade.evaluation.segmenters import LabelledImage
from cascade.sampling import evenly


@dataclass(frozen=True)
class Source:
    """A data set on disk: folder, which truth, which of its sequences, at most how many frames, evenly drawn, and the
    voxel size (z), y, x in µm where its files do not say.

    A folder of `cascade prepare` gives its crops: images of one annotated cell each, the others removed.
    """

    folder: Path
    truth: str = "gt"
    sequences: tuple[str, ...] = ()
    frames: int | None = None
    spacing_um: tuple[float, ...] = ()

    def load(self) -> list[LabelledImage]:
        """Its annotated images; a stack of which one slice is annotated gives that plane.

        Raises DataError for what cannot be used, naming the file.
        """
        if (self.folder / FILE_NAME).is_file():
            return _crops(self.folder)
        frames, _ = find_frames(self.folder, self.truth, list(self.sequences) or None)
        if self.frames is not None:
            if self.frames < 1:
                raise ValueError(f"at least one frame of each set is needed, got {self.frames}")
            frames = [frames[n] for n in evenly(len(frames), self.frames)]
        images, spacing = [], ()
        for frame in tqdm(frames, desc=f"reading {self.folder.name}", unit="image"):
            image, labels = frame.image(), frame.labels()
            check_pair(frame, image, labels)
            spacing = spacing or self._spacing(frames, image.ndim)
            if frame.z is not None:
                images.append(LabelledImage(image[frame.z], labels, spacing[1:]))
            else:
                images.append(LabelledImage(image, labels, spacing))
        return images

    def _spacing(self, frames, ndim: int) -> tuple[float, ...]:
        spacing, origin = spacing_of(self.folder, frames, ndim)
        if origin == "assumed" and len(self.spacing_um) == ndim:
            return self.spacing_um
        if origin == "assumed" and ndim == 3:
            raise DataError(
                f"{self.folder}: no voxel size; give --spacing_um z y x, or write {{'spacing_um': [z, y, x]}} to "
                "dataset.json"
            )
        return spacing


def _crops(folder: Path) -> list[LabelledImage]:
    from cascade.data.dataset import CropDataset

    crops = CropDataset(folder)
    window, spacing = crops.statistics[0].window, (crops.pixel_size_um,) * 2
    images, masks = (crops.columns[key][:, 0].float().numpy() for key in ("image", "mask"))
    return [
        LabelledImage(window.restore(image / 2 + 0.5).astype(np.float32), (mask > 0.5).astype(np.int32), spacing)
        for image, mask in zip(images, masks, strict=True)
    ]
