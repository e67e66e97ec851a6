"""Orthographic cameras around a cell, in its own frame: lengths in units of half the frame's width.

Points are (z, y, x) like arrays. A camera's image has axes (v, u) in [−1, 1], v down and u right, like a plane (y, x);
the camera that looks along z sees exactly (y, x).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch


@dataclass(frozen=True)
class Cameras:
    """N orthographic cameras. `axes` (N, 3, 3): rows are the viewing direction, v and u, orthonormal, in (z, y, x)."""

    axes: torch.Tensor

    def __post_init__(self) -> None:
        if self.axes.ndim != 3 or self.axes.shape[1:] != (3, 3):
            raise ValueError(f"camera axes must be (N, 3, 3), got {tuple(self.axes.shape)}")

    def __len__(self) -> int:
        return len(self.axes)

    def to(self, device: torch.device | str) -> "Cameras":
        """The same cameras on another device."""
        return Cameras(self.axes.to(device))

    def project(self, points: torch.Tensor) -> torch.Tensor:
        """World points (..., 3) to image coordinates (N, ..., 2) as (v, u)."""
        return torch.einsum("nij,...j->n...i", self.axes[:, 1:], points)

    def world(self, depth: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        """Depth (...,) along the viewing direction and image coordinates (..., 2) to world points (N, ..., 3)."""
        local = torch.cat([depth[..., None], image], -1)
        return torch.einsum("nij,...i->n...j", self.axes, local)

    @property
    def directions(self) -> torch.Tensor:
        """Viewing directions, (N, 3)."""
        return self.axes[:, 0]


def along_z() -> Cameras:
    """The camera that the outline is seen by."""
    return look_along(np.array([[1.0, 0.0, 0.0]]))


def hemisphere(count: int) -> Cameras:
    """`count` directions spread evenly over a hemisphere (Fibonacci lattice), the first along z.

    Opposite orthographic silhouettes are mirror images, so a hemisphere holds all there is to see.
    """
    k = np.arange(count)
    z = 1 - k / count
    azimuth = k * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - z * z)
    return look_along(np.stack([z, radius * np.sin(azimuth), radius * np.cos(azimuth)], -1))


def ring(count: int = 16, elevation_deg: float = 30.0) -> Cameras:
    """SyncDreamer's view set: a ring of azimuths at one elevation, about the y axis, starting towards z."""
    azimuth, elevation = 2 * np.pi * np.arange(count) / count, np.deg2rad(elevation_deg)
    flat = np.cos(elevation)
    return look_along(np.stack([flat * np.cos(azimuth), np.full(count, np.sin(elevation)), flat * np.sin(azimuth)], -1))


def view_set(name: str, count: int) -> Cameras:
    """A view set by its name in a config: "hemisphere" or "ring".

    >>> view_set("hemisphere", 4).directions[0].tolist()
    [1.0, 0.0, 0.0]
    """
    sets = {"hemisphere": hemisphere, "ring": ring}
    if name not in sets:
        raise ValueError(f"no view set {name!r}; there are {', '.join(sets)}")
    return sets[name](count)


def look_along(directions: npt.NDArray[Any]) -> Cameras:
    """Cameras along unit directions (N, 3); image axis v lies as near to y as it can (to −z, looking along y)."""
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    down = np.where(np.abs(directions[:, 1:2]) > 0.999, [[-1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    v = down - (down * directions).sum(1, keepdims=True) * directions
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    u = np.cross(v, directions)  # along z: (0,1,0) × (1,0,0) = (0,0,−1) in (z, y, x), so flip
    return Cameras(torch.tensor(np.stack([directions, v, -u], 1), dtype=torch.float32))


def pixel_centres(size: int, device: torch.device | str | None = None) -> torch.Tensor:
    """Image coordinates of pixel centres, (size, size, 2) as (v, u) in (−1, 1)."""
    axis = (torch.arange(size, device=device) + 0.5) * (2 / size) - 1
    return torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
