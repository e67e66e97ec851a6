"""What the texture model is told about a cell: its outline, how bright it is, how deep a pixel lies."""

import torch


def conditioning_image(mask: torch.Tensor, brightness: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) float32 in [0, 1]: the mask, the mask times brightness, and depth below the outline.

    mask: (B, 1, H, W) in {0, 1}. brightness: (B,) in [0, 1], a cell's mean after the intensity window; the authors'
    code also tells it through the mask's value. Depth is counted in erosions, up to 8 pixels.
    """
    if mask.ndim != 4 or mask.shape[1] != 1:
        raise ValueError(f"mask must be (B, 1, H, W), got {tuple(mask.shape)}")
    inner, depth = mask, torch.zeros_like(mask)
    for _ in range(8):
        depth = depth + inner / 8
        inner = -torch.nn.functional.max_pool2d(-inner, 3, stride=1, padding=1)
    return torch.cat([mask, mask * brightness.view(-1, 1, 1, 1), depth], 1)
