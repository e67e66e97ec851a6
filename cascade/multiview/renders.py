"""Training data of the multiview model: random harmonic solids and their silhouettes, drawn on the fly."""

import torch

from cascade.geometry.cameras import Cameras, along_z
from cascade.shapes.harmonics import HarmonicShapes, ShapeLaw, SilhouetteRenderer, draw_shapes

_FRAME = 0.95  # a solid that reaches beyond this fraction of the frame is drawn again


class HarmonicRenders:
    """Draws (condition, views) pairs: the silhouette along z and those in `cameras`, as distance maps."""

    def __init__(self, cameras: Cameras, law: ShapeLaw, size: int):
        self.law, self.count = law, len(cameras)
        axes = torch.cat([along_z().axes.to(cameras.axes), cameras.axes])
        self.renderer = SilhouetteRenderer(Cameras(axes), law.degree, size)
        self.rejected = 0

    def draw(self, batch: int, generator: torch.Generator) -> tuple[HarmonicShapes, torch.Tensor, torch.Tensor]:
        """`batch` solids with their condition (B, H, W) and views (B, N, H, W).

        A solid's silhouette along z has the area of a disc of radius 0.38 to 0.5. Solids that leave the frame are
        drawn again; `rejected` counts them.
        """
        shapes = self._in_frame(batch, generator)
        maps = self.renderer(shapes)
        return shapes, maps[:, 0], maps[:, 1:]

    def _in_frame(self, batch: int, generator: torch.Generator) -> HarmonicShapes:
        kept: list[HarmonicShapes] = []
        while sum(map(len, kept)) < batch:
            shapes = draw_shapes(batch, self.law, generator)
            rims = self.renderer.rims(shapes)
            equivalent = rims[:, 0].square().mean(-1).sqrt()  # of the silhouette along z: its area is π r²
            wanted = 0.38 + 0.12 * torch.rand(batch, generator=generator, device=rims.device)
            factor = wanted / equivalent
            inside = rims.amax((1, 2)) * factor < _FRAME
            kept.append(shapes.scaled(factor)[inside])
            self.rejected += int((~inside).sum())
        form = torch.cat([s.form for s in kept])[:batch]
        coefficients = torch.cat([s.coefficients for s in kept])[:batch]
        return HarmonicShapes(form, coefficients)
