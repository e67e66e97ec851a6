"""The seam between annotations and pictures: any source of annotations goes with any painter."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from cascade.annotation import Annotation, Sample
from cascade.export.records import SampleRecord

Made = TypeVar("Made")
"""A sample, or the plan of one that is only made when it is written."""

Make = Callable[[int, Iterable[int]], Iterator[Made]]
"""(seed, numbers) -> samples, each of which depends on the seed and its own number alone."""

Write = Callable[[Made, int, Path], SampleRecord]
"""(sample, number, folder) -> its record: writes a sample into the folder of a data set."""


class Source(Protocol):
    """Makes annotations: a simulator, or labels that are there already."""

    def __call__(self, seed: int, index: int) -> Annotation:
        """The annotation of image `index`, which depends on seed and index alone."""


class Painter(Protocol):
    """Makes pictures of annotations."""

    def __call__(self, annotation: Annotation, seed: int, index: int) -> Sample:
        """The annotation with an image, which depends on annotation, seed and index alone."""


def painted(source: Source, painter: Painter) -> Make[Sample]:
    """Samples of a source, painted one by one: what `cascade.generation.shards.run` makes data sets of."""

    def make(seed: int, numbers: Iterable[int]) -> Iterator[Sample]:
        for index in numbers:
            yield painter(source(seed, index), seed, index)

    return make
