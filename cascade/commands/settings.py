"""What is asked of `fit`, `assemble`, `sample` and `demo`."""

import math
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Literal

from cascade.data.settings import Truth, check_crops
from cascade.settings import at_least, check_fields, check_spacing

Step = Literal["prepare", "mask", "texture", "assemble", "sketch", "tune", "generate", "evaluate"]


@dataclass(frozen=True)
class FitSettings:
    """What `fit` makes, in `output_dir`: crops/, stages/, model/, synthetic/ and report/.

    >>> FitSettings("images", output_dir="cells", budget=0)
    Traceback (most recent call last):
    ValueError: budget must be minutes above 0, got 0
    """

    source: Path
    """Annotated images, as for prepare; with `simulate` raw ones."""
    _: KW_ONLY
    output_dir: Path
    """Folder of all that is made."""
    simulate: str | None = None
    """Without annotations: a DDPM from sketches learns the raw images, and paints what this simulator makes: auto,
    nuclei or tissue (fitted to the images), or an organism, see `cascade simulate`."""
    truth: Truth = "gt"
    """The Cell Tracking Challenge's gold or silver truth."""
    sequences: tuple[str, ...] = ()
    """Which of its sequences; default all."""
    channel: str | None = None
    """Of images that have several: the one to read, by its name, or by its number from 1."""
    crop_size: int | None = None
    """Pixels; default 64, that of the embedded models, or with `pixel_size_um` as many as nearly all cells fit into."""
    pixel_size_um: float | None = None
    """Resample to this pixel size; default the data set's own, or so much coarser that nearly all cells fit."""
    spacing_um: tuple[float, ...] = ()
    """Voxel size z y x or y x, of the images and of those to test on; default as stored."""
    sparse: bool = False
    """Planes show cells that nobody annotated."""
    licence: str = "not stated"
    """Of the images, and whom to cite."""
    budget: float = 60.0
    """Minutes for the trainings and their trials; the rest, and finetuning the decoder, comes on top."""
    base_model: str | None = None
    """What outlines and texture go on from: an embedded model's name, a folder of trained stages, or a Stable
    Diffusion, which only the texture goes on from; default nuclei2d for planes, nuclei3d for stacks, with `simulate`
    sketch2d and sketch3d, of stacks of membranes membrane3d."""
    num_images: int = 100
    """Of the synthetic data set."""
    bank: int | None = None
    """Make so many cells once and use them in all images; default new ones in every image."""
    seed: int = 0
    """Of crops, trainings and images."""
    test: Path | None = None
    """Annotated images to evaluate on; Cellpose (extra cellpose) is trained."""
    test_truth: Truth = "gt"
    """Their truth."""
    test_sequences: tuple[str, ...] = ()
    """Which of their sequences; default all."""
    skip: tuple[Step, ...] = ()
    """Steps to leave out: prepare, mask, texture, assemble, generate, evaluate; with `simulate` sketch, tune,
    generate, evaluate."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_crops(self.crop_size, self.pixel_size_um)
        check_spacing("spacing_um", self.spacing_um)
        if not 0 < self.budget < math.inf:
            raise ValueError(f"budget must be minutes above 0, got {self.budget:g}")
        at_least(self, num_images=1, bank=1, seed=0)
        for name in ("bank", "sparse", "crop_size", "pixel_size_um") if self.simulate else ():
            if getattr(self, name):
                raise ValueError(f"{name} means nothing with `simulate`, which cuts no crops: leave it out")
        for name in ("test_truth", "test_sequences") if self.test is None else ():
            if getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"{name} goes with `test`")
        if self.simulate and self.truth != type(self).truth:
            raise ValueError("truth means nothing with `simulate`, which looks at raw images alone: leave it out")


@dataclass(frozen=True)
class AssembleSettings:
    """Which stages are put together, and where.

    >>> AssembleSettings("stages", output_dir="model").half
    False
    """

    model: Path
    """Folder with mask/, texture/ and, in 3D, multiview/."""
    _: KW_ONLY
    output_dir: Path
    """Folder of the whole model, with a preview and cards."""
    half: bool = False
    """Half-precision weights: half the size."""
    push_to_hub: str | None = None
    """Hub id, such as me/my-cells: upload it, too."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class SampleSettings:
    """Which sample is drawn, and where to.

    >>> SampleSettings("nuclei31", "images")
    Traceback (most recent call last):
    ValueError: name must be one of nuclei30, got nuclei31
    """

    name: Literal["nuclei30"]
    """nuclei30: thirty outlined nuclei in three planes."""
    output_dir: Path
    """Folder of images/, masks/ and a preview."""
    _: KW_ONLY
    seed: int = 0
    """Other nuclei with every seed."""

    def __post_init__(self) -> None:
        check_fields(self)
        at_least(self, seed=0)


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """Where the demonstration is written.

    >>> DemoSettings(seed=-1)
    Traceback (most recent call last):
    ValueError: seed must be a whole number from 0, got -1
    """

    output_dir: Path = Path("demo")
    """Folder of two data sets and their pictures."""
    seed: int = 0
    """Of cells and images."""

    def __post_init__(self) -> None:
        check_fields(self)
        at_least(self, seed=0)
