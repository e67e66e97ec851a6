"""Annotated data sets on disk, as labelled images to train and test on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm.auto import tqdm

from cascade.data.frames import Frame, check_pair, find_frames
from cascade.data.spacing import frame_spacing, needed_spacing
from cascade.evaluation.labelled import LabelledImage
from cascade.evaluation.settings import EvaluateSettings
from cascade.evenly import evenly
from cascade.optics.statistics import FILE_NAME
from cascade.reading import DataError

_T = TypeVar("_T")


@dataclass(frozen=True)
class Source:
    """A data set on disk: folder, which truth, which of its sequences, at most how many frames, evenly drawn, the
    voxel size (z), y, x in µm, default as its files say, and of images with several channels which one, and what the
    setting is called that says so, if there is one.

    A folder of `cascade prepare` gives its crops: images of one annotated cell each, the others removed, of the pixel
    size that they were made with.
    """

    folder: Path
    truth: str = "gt"
    sequences: tuple[str, ...] = ()
    frames: int | None = None
    spacing_um: tuple[float, ...] = ()
    channel: str | None = None
    channel_setting: str = "channel"

    def load(self) -> list[LabelledImage]:
        """Its annotated images; a stack of which one slice is annotated gives that plane.

        Raises DataError for what cannot be used, naming the file.
        """
        if self.frames is not None and self.frames < 1:
            raise ValueError(f"at least one frame of each set is needed, got {self.frames}")
        if (self.folder / FILE_NAME).is_file():
            return self._some(_crops(self.folder))
        try:
            return self._read(self.found())
        except DataError as error:
            if self.channel_setting:
                raise DataError(str(error).replace("`channel`", f"`{self.channel_setting}`")) from error
            if "`channel`" in str(error):
                raise DataError(f"{error}; of this set it cannot be said: save that channel alone") from error
            raise

    def _read(self, frames: list[Frame]) -> list[LabelledImage]:
        images: list[LabelledImage] = []
        usual: tuple[float, ...] = ()
        for frame in tqdm(frames, desc=f"reading {self.folder.name}", unit="image"):
            image, labels = frame.image(), frame.labels()
            check_pair(frame, image, labels)
            given = self.spacing_um[-image.ndim :]  # one may be told of stacks, and planes beside them be read
            usual = usual or needed_spacing(self.folder, frames, image.ndim, given)
            spacing = frame_spacing(self.folder, frame, image.ndim, usual, given)
            if frame.z is not None:
                images.append(LabelledImage(image[frame.z], labels, spacing[1:], whole=image))
            else:
                images.append(LabelledImage(image, labels, spacing))
        return images

    def found(self) -> list[Frame]:
        """Its annotated frames, in the order of the images. Raises DataError where there are none."""
        return self._some(find_frames(self.folder, self.truth, list(self.sequences) or None, channel=self.channel)[0])

    def _some(self, found: list[_T]) -> list[_T]:
        return found if self.frames is None else [found[n] for n in evenly(len(found), self.frames)]


def real_sources(settings: EvaluateSettings) -> tuple[Source | None, Source]:
    """What an evaluation trains, if there is any, and tests on."""
    train, how = settings.real_train, (settings.frames, settings.spacing_um, settings.channel)
    return (
        None if train is None else Source(train, settings.real_train_truth, settings.real_train_sequences, *how),
        Source(settings.real_test, settings.real_test_truth, settings.real_test_sequences, *how),
    )


def synthetic_sources(settings: EvaluateSettings) -> dict[str, Source]:
    """The generated sets of an evaluation, by name."""
    return {name: generated_source(settings, folder) for name, folder in settings.synthetic_folders().items()}


def generated_source(settings: EvaluateSettings, folder: Path) -> Source:
    """A generated set."""
    how: dict[str, Any] = dict(channel=settings.synthetic_channel, channel_setting="synthetic_channel")
    return Source(folder, frames=settings.frames, **how)


def sparse_sources(settings: EvaluateSettings) -> dict[str, Source]:
    """The sets of its second setting, by name."""
    real: dict[str, Any] = dict(channel=settings.channel, spacing_um=settings.spacing_um)
    return {
        name: generated_source(settings, folder)
        if name == "synthetic"
        else Source(folder, frames=settings.frames, **(real if name == "real" else {"channel_setting": ""}))
        for name, folder in settings.sparse_folders().items()
    }


def _crops(folder: Path) -> list[LabelledImage]:
    from cascade.data.dataset import CropDataset

    crops = CropDataset(str(folder))
    window, spacing = crops.statistics[0].window, (crops.pixel_size_um,) * 2
    images, masks = (crops.columns[key][:, 0].float().numpy() for key in ("image", "mask"))
    return [
        LabelledImage(window.restore(image / 2 + 0.5).astype(np.float32), (mask > 0.5).astype(np.int32), spacing)
        for image, mask in zip(images, masks, strict=True)
    ]
