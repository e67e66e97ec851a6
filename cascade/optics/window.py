"""The fixed intensity window of a data set: camera units to [0, 1] and back."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_BRIGHT = 0.25  # of the contrast of a sketch: more is cells
_BRIGHTER = 0.5  # than the window's end, in what the window spans: more is another kind of image


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

    @property
    def span(self) -> float:
        """Camera units from end to end."""
        return self.high - self.low

    def stretch(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Camera units -> float32 in [0, 1]."""
        unit = (np.asarray(image, np.float32) - self.low) / (self.high - self.low)
        return np.clip(unit, 0, 1) ** self.gamma

    def restore(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """[0, 1] -> camera units, float32."""
        unit = np.clip(np.asarray(image, np.float32), 0, 1) ** (1 / self.gamma)
        return self.low + unit * (self.high - self.low)


def check_window(sketch: npt.NDArray[Any], window: Window) -> None:
    """Raises ValueError for a sketch, in camera units, that lies beyond a model's window.

    Judged by the background and by a middling cell: a few may be brighter than any window.
    """
    ground, bright = np.quantile(sketch, [0.05, 0.99])
    cells = sketch[sketch > ground + _BRIGHT * (bright - ground)]
    middling = float(np.median(cells)) if len(cells) else float(ground)
    span = window.high - window.low
    if ground >= window.high or middling <= window.low or middling > window.high + _BRIGHTER * span:
        raise ValueError(
            f"the sketch's intensities, {ground:.4g} to about {middling:.4g}, do not fit the model's window, "
            f"{window.low:.4g} to {window.high:.4g}: draw it with the model's settings, or train on images as bright"
        )
