"""What is asked of an evaluation: which sets are compared, by which trainings; and of a sweep."""

import math
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Literal

from cascade.data.settings import Truth
from cascade.settings import at_least, check_fields, check_spacing

Protocol = Literal["narrow", "wide", "sgd", "full", "cellpose4", "multiclass"]


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """A segmenter is trained on real, synthetic and both, and all are tested on `real_test`.

    The training and the test images must share no image, nor be slices of the same stack.

    >>> EvaluateSettings(real_train="a", real_test="b", synthetic=["c"], output_dir="report", seeds=0)
    Traceback (most recent call last):
    ValueError: seeds must be a whole number from 1, got 0
    """

    real_train: Path | None = None
    """Real images to train on; without any, what was generated is judged alone."""
    real_train_truth: Truth = "gt"
    """Their truth."""
    real_train_sequences: tuple[str, ...] = ()
    """Which of their sequences; default all."""
    real_test: Path
    """Real images to test on."""
    real_test_truth: Truth = "gt"
    """Their truth."""
    real_test_sequences: tuple[str, ...] = ()
    """Which of their sequences; default all."""
    spacing_um: tuple[float, ...] = ()
    """Voxel size z y x or y x of the real images; default as stored."""
    channel: str | None = None
    """Of real images that have several: the one to read, by its name, or by its number from 1."""
    synthetic: tuple[str, ...]
    """[NAME=]FOLDER: the first is judged, and joined with the real one; others are rows, ablations for example."""
    synthetic_channel: str | None = None
    """Of generated images that have several channels: the one to read, by its number from 1."""
    synthetic_test: Path | None = None
    """Synthetic images to test on as well, apart from `synthetic`: Real2Real, Real2Syn, Syn2Real, Syn2Syn, Mix2Real,
    Mix2Syn."""
    sparse: tuple[str, ...] = ()
    """NAME=FOLDER: a second setting with few annotations: real=…, synthetic=…, others; prepared folders give their
    crops. Its real and synthetic are also joined."""
    masked: bool = False
    """Also train on the images of `sparse` real=… with a loss that passes over what nobody annotated: row masked."""
    generalist: Path | None = None
    """Adds "none", a network trained on annotated images of another kind."""
    pretrained: str | None = None
    """Or adds it as a Cellpose model of this name, such as cyto3, cpsam_v2."""
    predictions: tuple[str, ...] = ()
    """NAME=FOLDER: a row of labels that others found in the real test images, such as another tool's or the silver
    truth; files are named as the images, or as results of the Cell Tracking Challenge."""
    frames: int | None = None
    """Use at most so many images of each set."""
    seeds: int = 3
    """Trainings of each kind."""
    protocol: Protocol = "narrow"
    """narrow, full: Cellpose 3.1 from scratch for two cores, or as it is for a GPU; wide: as many channels as it comes
    with, trained as the narrow one, which takes three to four times as long; sgd: the narrow one by 500 steps of plain
    gradient descent; cellpose4: Cellpose 4 finetuned; multiclass: for tissue, background, membranes and centroids by a
    small U-Net, and cells between membranes."""
    steps: int | None = None
    """Of each training; default as the protocol says."""
    cellprob_threshold: float = 0.0
    """Of Cellpose's segmentations: below 0 cells are larger."""
    held_out: Path | None = None
    """Generated images that nothing is trained on, such as of another seed: every row is also scored at the
    cellprob_threshold that finds the most in them, which is so chosen without a real image."""
    ratios: tuple[int, ...] = ()
    """Percent: also train on a fixed number of images of which so many are synthetic."""
    title: str = "Does synthetic data improve segmentation?"
    """Of the report."""
    output_dir: Path
    """Gets report.html, report.json, table.md; finished trainings are kept in runs/, and the same call goes on."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_spacing("spacing_um", self.spacing_um)
        at_least(self, frames=1, seeds=1, steps=1)
        for ratio in self.ratios:
            if not 0 <= ratio <= 100:
                raise ValueError(f"ratios must be percent, from 0 to 100, got {ratio}")
        if not math.isfinite(self.cellprob_threshold):
            raise ValueError(f"cellprob_threshold must be a finite number, got {self.cellprob_threshold}")
        if self.generalist and self.pretrained:
            raise ValueError('"none" is either `generalist` or `pretrained`: give one of them')
        if self.ratios and self.real_train is None:
            raise ValueError("ratios mixes synthetic images with real ones: give `real_train`")
        if self.protocol == "multiclass" and (self.pretrained or self.cellprob_threshold):
            raise ValueError("pretrained and cellprob_threshold are of Cellpose: give another `protocol`, or neither")
        if self.masked and ("real" not in self.sparse_folders() or self.protocol in ("cellpose4", "multiclass")):
            raise ValueError("masked needs `sparse` real=FOLDER, and a `protocol` of Cellpose 3")
        if not self.synthetic:
            raise ValueError("synthetic must name at least one folder")
        self.synthetic_folders()
        self.sparse_folders()
        for name in self.prediction_folders():
            if name in self.synthetic_folders():
                raise ValueError(f"synthetic has a row {name!r} already: give `predictions` another name")

    def synthetic_folders(self) -> dict[str, Path]:
        """By name: the first is "synthetic", others have their own or their folder's name."""
        found: dict[str, Path] = {}
        for number, entry in enumerate(self.synthetic):
            name, given, folder = entry.partition("=")
            if not given or Path(entry).is_dir():
                name, folder = Path(entry).name, entry
            name = name if number else "synthetic"
            if name in found:
                raise ValueError(f"synthetic has a row {name!r} already: give {entry} as NAME=FOLDER")
            found[name] = Path(folder)
        return found

    def sparse_folders(self) -> dict[str, Path]:
        """By name; synthetic images go with real ones."""
        pairs = [entry.split("=", 1) for entry in self.sparse]
        found = {pair[0]: Path(pair[-1]) for pair in pairs}
        alone = "synthetic" in found and "real" not in found
        if alone or len(found) < len(pairs) or any(len(pair) < 2 for pair in pairs):
            raise ValueError("sparse takes real=FOLDER, synthetic=FOLDER and other NAME=FOLDER, each name once")
        return found

    def prediction_folders(self) -> dict[str, Path]:
        """By name."""
        pairs = [entry.split("=", 1) for entry in self.predictions]
        found = {pair[0]: Path(pair[-1]) for pair in pairs}
        if len(found) < len(pairs) or any(len(pair) < 2 or not pair[0] for pair in pairs):
            raise ValueError("predictions takes NAME=FOLDER, each name once")
        return found


@dataclass(frozen=True)
class TuneSettings:
    """Sketches of real images are painted from several times t_start, smoothed by several σ.

    >>> TuneSettings("images", model="sketch2d", t_start=(0, 400))
    Traceback (most recent call last):
    ValueError: t_start must be times from 1, none twice, got 0 400
    """

    source: Path
    """Folder of real images, raw or annotated."""
    _: KW_ONLY
    model: str
    """A DDPM from sketches: folder, Hub id, or an embedded one, such as sketch2d."""
    output_dir: Path = Path("tune")
    """Gets tune.json, table.md and figures."""
    truth: Truth | None = None
    """gt or st: draw sketches of these labels, or of masks beside the images; default of cells that are detected."""
    sequences: tuple[str, ...] = ()
    """Which sequences of a Cell Tracking Challenge folder; default all."""
    channel: str | None = None
    """Of images that have several: the one to read, by its name, or by its number from 1."""
    spacing_um: tuple[float, ...] = ()
    """Voxel size z y x or y x; default as stored, else the model's."""
    t_start: tuple[int, ...] = (100, 200, 400, 600, 800, 1000)
    """Times up to which sketches are noised."""
    sigma: tuple[float, ...] = (0.0, 1.0, 2.0)
    """Pixels of the Gaussian that they are smoothed with before."""
    num_images: int = 4
    """Images to try it on, spread over the folder; of each the middle, 384×384 or 24×128×128 voxels."""
    seed: int = 0
    """Of the noise."""
    save: bool = False
    """Write the recommended pair into the model's folder, where cascade generate takes it from."""
    device: str | None = None
    """Default cuda if there is one, else cpu."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_spacing("spacing_um", self.spacing_um)
        at_least(self, num_images=1, seed=0)
        for name, least, what in (("t_start", 1, "times from 1"), ("sigma", 0, "pixels from 0")):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values) or not all(least <= one < math.inf for one in values):
                raise ValueError(f"{name} must be {what}, none twice, got {' '.join(f'{one:g}' for one in values)}")
