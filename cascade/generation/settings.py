"""What `cascade generate` is asked for besides the images themselves: the model, how many, where and in which form."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cascade.settings import at_least, check_fields

Format = Literal[
    "ctc", "cellpose", "stardist", "nnunet", "ome-tiff", "ome-zarr", "coco", "huggingface", "annotations"
]  # fmt: skip
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """One data set to be generated, or to be gone on with."""

    output_dir: Path
    """Folder of the data set."""
    model: str = "nuclei2d"
    """Folder, Hub id, or an embedded one: nuclei2d, nuclei3d, or sketch2d, sketch3d, stemcells2d, membrane3d,
    nuclei3d-gan, membrane3d-gan, which paint annotations of whole scenes."""
    num_images: int | None = None
    """How many images; default 1, of annotations that exist as many as there are."""
    seed: int = 0
    """Image n depends on it and on n alone."""
    format: tuple[Format, ...] = ("ctc",)
    """ctc, cellpose, stardist, nnunet, ome-tiff, ome-zarr, coco, huggingface, or annotations, which are labels without
    images, with all that is known of the cells; several may be given."""
    meshes: bool = False
    """Also write 3D cells as GLB."""
    shard_size: int = 4
    """Images between two points to resume from."""
    region: Path | None = None
    """TIFF: cells lie where this image, as large as the canvas, is not zero; cells of one layer where it is not zero as
    seen along z."""
    bank: int | None = None
    """For large data sets: make so many cells once, and use them in all images, turned and as bright as each image
    asks for; default new cells for every image."""
    tiles: bool = False
    """Compose canvases larger than memory tile by tile (OME-Zarr; needs bank)."""
    only: int | None = None
    """Make this sample again and compare it."""
    dry_run: bool = False
    """Make one image, and print time, memory and disk of all."""
    slurm: str | None = None
    """Partition: submit as a Slurm array (needs submitit)."""
    slurm_tasks: int = 8
    """How many tasks share the work."""
    slurm_gpus: int = 0
    """GPUs that each task asks for."""
    dtype: Dtype = "auto"
    """Of the networks; auto: bfloat16 where the processor that begins the data set computes in it, else float32."""
    few_steps: bool = False
    """With the weights that draw outlines, texture or whole scenes in a few steps, if the model has them: several times
    as fast."""
    compile: bool = False
    """Compile the texture networks first: pays on thousands of slices."""
    device: str | None = None
    """Default cuda if there is one, else cpu."""

    def __post_init__(self) -> None:
        check_fields(self)
        at_least(self, num_images=1, seed=0, shard_size=1, bank=1, only=0, slurm_tasks=1, slurm_gpus=0)
        if self.bank is not None and self.meshes:
            raise ValueError("bank goes without `meshes`: solids are not kept")
        if self.slurm and self.device:
            raise ValueError("device goes without `slurm`: each task takes its GPU (`slurm_gpus`), or the CPU")
        if self.tiles:
            if not self.bank:
                raise ValueError("tiles needs `bank`: how many different cells a large canvas is made of")
            if self.format not in (("ctc",), ("ome-zarr",)) or self.dry_run:
                raise ValueError("tiles writes ome-zarr, and goes without `dry_run`")


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """Where annotations to be painted come from; without, a model of the cascade makes its own."""

    annotations: Path | None = None
    """Paint these: a folder of annotations, or of labels in any layout that `cascade simulate labels` reads."""
    simulate: str | None = None
    """Paint annotations of an organism, as `cascade simulate` makes them: gowt1, nuclei, tissue, … or auto."""
    like: Path | None = None
    """Images, raw or labelled, that the numbers and sizes of `simulate` nuclei or auto are fitted to."""
    like_sequences: tuple[str, ...] = ()
    """Which of their sequences; default all."""
    like_channel: str | None = None
    """Of images of several channels: the one to look at, by its name, or by its number from 1."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.annotations is not None and self.simulate is not None:
            raise ValueError("annotations goes without `simulate`: both are sources")
        if self.like is not None and self.simulate is None:
            raise ValueError("like goes with `simulate` nuclei or auto")
        if self.like_sequences and self.like is None:
            raise ValueError("like_sequences goes with `like`")
        if self.like_channel is not None and self.like is None:
            raise ValueError("like_channel goes with `like`")

    @property
    def given(self) -> bool:
        """Whether there is a source."""
        return self.annotations is not None or self.simulate is not None
