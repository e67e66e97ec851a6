"""Thirty outlined nuclei to try everything with, drawn by the embedded model, without network."""

import tempfile
from pathlib import Path

from napari_cascade.layers import LayerData
from napari_cascade.reader import read


def nuclei30() -> list[LayerData]:
    """Three planes and their labels, those of `cascade sample nuclei30`; drawing them takes seconds."""
    from cascade.commands.sample import sample
    from cascade.commands.settings import SampleSettings

    with tempfile.TemporaryDirectory() as folder:
        return read(str(sample(SampleSettings("nuclei30", Path(folder) / "nuclei30"))))
