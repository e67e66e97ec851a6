"""The fixed intensity window of a data set: camera units to [0, 1] and back."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Window:
    """Maps camera units to [0, 1] by ((I - low) / (high - low))^gamma, clipped.

    With gamma = 1/2 photon noise has the same strength at every brightness (Anscombe, Biometrika 35, 1948), so faint
    and bright cells weigh alike in a loss and the few bright ones do not squeeze the rest into the dark.

    >>> window = Window(100, 500)
    >>> window.stretch(np.array([50, 100, 200, 500])).tolist()
    [0.0, 0.0, 0.5, 1.0]
    >>> window.restore(np.array([0.5])).tolist()
    [200.0]
    """

    low: float
    high: float
    gamma: float = 0.5

    def __post_init__(self) -> None:
        if not self.high > self.low:
            raise ValueError(f"an intensity window needs high > low, got [{self.low}, {self.high}]")

    def stretch(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Camera units -> float32 in [0, 1]."""
        unit = (np.asarray(image, np.float32) - self.low) / (self.high - self.low)
        return np.clip(unit, 0, 1) ** self.gamma

    def restore(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """[0, 1] -> camera units, float32."""
        unit = np.clip(np.asarray(image, np.float32), 0, 1) ** (1 / self.gamma)
        return self.low + unit * (self.high - self.low)
