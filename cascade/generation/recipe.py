"""What the samples of a job are made of: recorded with the job, and read back from it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cascade.generation.settings import Dtype, GenerationSettings
from cascade.generation.shards import file_sha256
from cascade.population.settings import CascadeSettings

_OPTIONAL = ("tiles", "micro_batch_size", "few_steps", "vary")  # recorded only where they are given


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of the images, and those of the data set that change their bytes."""

    images: CascadeSettings
    region: Path | None = None
    region_sha256: str | None = None
    bank: int | None = None
    tiles: bool = False
    dtype: Dtype = "float32"
    few_steps: bool = False
    compile: bool = False

    @classmethod
    def of(cls, settings: GenerationSettings, images: CascadeSettings) -> "Recipe":
        """As it was asked for; the region's file is looked at, since another one makes another data set."""
        region = settings.region
        return cls(
            images=images,
            region=None if region is None else region.resolve(),
            region_sha256=None if region is None else file_sha256(region),
            bank=settings.bank,
            tiles=settings.tiles,
            dtype=settings.dtype,
            few_steps=settings.few_steps,
            compile=settings.compile,
        )

    def record(self) -> dict[str, Any]:
        """Plain values by name, in one level, for a job's `settings`."""
        own = {one.name: getattr(self, one.name) for one in dataclasses.fields(self) if one.name != "images"}
        found = dataclasses.asdict(self.images) | own
        found["region"] = None if self.region is None else str(self.region)
        found["canvas_size"] = None if self.images.canvas_size is None else list(self.images.canvas_size)
        return {name: value for name, value in found.items() if value or name not in _OPTIONAL}

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "Recipe":
        """Inverse of `record`; raises TypeError for names that are not known."""
        names = {one.name for one in dataclasses.fields(CascadeSettings)}
        images = {name: value for name, value in record.items() if name in names}
        own = {name: value for name, value in record.items() if name not in names}
        own["region"] = Path(own["region"]) if own.get("region") else None
        return cls(images=CascadeSettings(**images), **own)
