"""The simulators by the names that the command line knows them by."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from cascade.annotation import Annotation

Simulator = Callable[[np.random.Generator, Any], Annotation]
"""(rng, settings of the organism) -> annotation."""


@dataclass(frozen=True)
class Organism:
    """Where a simulator and its settings are to be imported from, and one line on it."""

    about: str
    settings: str
    simulator: str = ""
    """Empty for labels that exist, which are read, not simulated."""

    def settings_class(self) -> type:
        """The class of its settings."""
        found: type = _imported(self.settings)
        return found

    def simulate(self) -> Simulator:
        """The simulator itself."""
        found: Simulator = _imported(self.simulator)
        return found


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(f"cascade.simulators.{module}"), name)


ORGANISMS = {
    "nuclei": Organism("nuclei by their numbers, in 2D or 3D", "nuclei.NucleiSettings", "nuclei.nuclei"),
    "celegans": Organism("nuclei of a C. elegans embryo, 3D", "celegans.CElegansSettings", "celegans.celegans"),
    "tribolium": Organism("nuclei of T. castaneum on a map, 3D", "tribolium.TriboliumSettings", "tribolium.tribolium"),
    "zebrafish": Organism(
        "nuclei of D. rerio, at detections or anywhere, 3D", "zebrafish.ZebrafishSettings", "zebrafish.zebrafish"
    ),
    "gowt1": Organism("nuclei of mouse stem cells, 2D", "stemcells.StemCellSettings", "stemcells.stemcells"),
    "hela": Organism("nuclei of HeLa cells in colonies, 2D", "hela.HeLaSettings", "hela.hela"),
    "meristem": Organism("cells of an A. thaliana meristem, 3D", "meristem.MeristemSettings", "meristem.meristem"),
    "tissue": Organism("cells that fill a tissue, 3D", "tissue.TissueSettings", "tissue.tissue"),
    "labels": Organism("labels that exist, as they are, repeated along z, or in layers", "labels.LabelsSettings"),
}
