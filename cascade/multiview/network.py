"""A SyncDreamer-style network: the noise of N views predicted jointly, through a volume that all views share."""

import torch
from diffusers import ConfigMixin, ModelMixin, UNet2DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch.nn import functional as F

from cascade.geometry.cameras import Cameras
from cascade.multiview.sampling import trilinear


class MultiviewNetwork(ModelMixin, ConfigMixin):
    """Denoises N views of one solid at once (SyncDreamer, §3; cascaded diffusion paper, Eq. 1).

    Every noisy view and the condition are encoded and projected back into a volume of the cell's frame, a 3D network
    makes one solid of them, and each view reads that volume along its own rays before a 2D UNet denoises it. No layer
    depends on how many cameras there are or where they stand.

    Args:
        sample_size: pixels of a view.
        block_out_channels: of the 2D UNet.
        layers_per_block: of the 2D UNet.
        volume_size: nodes of the shared volume per axis, and samples along a ray.
        volume_channels: of the 3D network at full and at half resolution.
        view_channels: what each view contributes to a node, and what a pixel reads from the volume.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 32,
        block_out_channels: tuple[int, ...] = (32, 64, 96),
        layers_per_block: int = 1,
        volume_size: int = 16,
        volume_channels: tuple[int, int] = (32, 64),
        view_channels: int = 16,
    ):
        super().__init__()
        width = 4 * block_out_channels[0]
        self.time = Timesteps(block_out_channels[0], flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(block_out_channels[0], width)
        self.encoder = torch.nn.Sequential(
            torch.nn.Conv2d(1, view_channels, 3, padding=1),
            torch.nn.SiLU(),
            torch.nn.Conv2d(view_channels, view_channels, 4, stride=2, padding=1),
        )
        self.volume = _VolumeNetwork(3 * view_channels, volume_channels, width)
        self.frustum = torch.nn.Sequential(
            torch.nn.Conv2d(volume_channels[0] * volume_size, 2 * view_channels, 1),
            torch.nn.SiLU(),
            torch.nn.Conv2d(2 * view_channels, view_channels, 3, padding=1),
        )
        self.view_embedding = torch.nn.Sequential(
            torch.nn.Linear(9, width), torch.nn.SiLU(), torch.nn.Linear(width, width)
        )
        self.unet = UNet2DModel(
            sample_size=sample_size,
            in_channels=2 + view_channels,
            out_channels=1,
            block_out_channels=tuple(block_out_channels),
            layers_per_block=layers_per_block,
            down_block_types=("DownBlock2D",) * len(block_out_channels),
            up_block_types=("UpBlock2D",) * len(block_out_channels),
            class_embed_type="identity",
            norm_num_groups=16,
            add_attention=False,
        )

    def forward(
        self, noisy: torch.Tensor, timestep: torch.Tensor, condition: torch.Tensor, cameras: Cameras
    ) -> torch.Tensor:
        """Predict for every view what the scheduler's prediction_type asks for.

        Args:
            noisy: (B, N, H, W), one view per camera.
            timestep: (B,) or a scalar.
            condition: (B, H, W), the view along z, clean.
            cameras: the N cameras of `noisy`.

        Returns (B, N, H, W).
        """
        batch, views, height, width = noisy.shape
        if views != len(cameras):
            raise ValueError(f"noisy has {views} views for {len(cameras)} cameras")
        timestep = torch.as_tensor(timestep, device=noisy.device).expand(batch)
        embedding = self.time_embedding(self.time(timestep).to(noisy.dtype))  # (B, E)
        volume = self._shared_volume(noisy, condition, cameras, embedding)
        read = self._read_frusta(volume, cameras, (height, width))  # (B·N, C, H, W)
        who = self.view_embedding(cameras.axes.flatten(1).to(noisy.dtype)).repeat(batch, 1)
        shadow = self._shadow(condition, cameras).view(-1, 1, height, width)
        stacked = torch.cat([noisy.reshape(-1, 1, height, width), shadow, read], 1)
        return self.unet(stacked, timestep.repeat_interleave(views), who).sample.view(noisy.shape)

    def _shared_volume(
        self, noisy: torch.Tensor, condition: torch.Tensor, cameras: Cameras, embedding: torch.Tensor
    ) -> torch.Tensor:
        """(B, C, G, G, G): mean and maximum over the views, and the condition, back-projected and made one."""
        batch, views = noisy.shape[:2]
        size = self.config.volume_size
        axis = (torch.arange(size, device=noisy.device) + 0.5) * (2 / size) - 1
        nodes = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).view(-1, 3)
        features = self.encoder(noisy.reshape(-1, 1, *noisy.shape[2:]))
        grid = cameras.project(nodes).flip(-1)[:, None].repeat(batch, 1, 1, 1)  # (B·N, 1, P, 2)
        seen = _bilinear(features, grid).view(batch, views, -1, size, size, size)
        front = self.encoder(condition[:, None])
        front = _bilinear(front, nodes[:, 1:].flip(-1).expand(batch, 1, -1, -1)).view(batch, -1, size, size, size)
        return self.volume(torch.cat([seen.mean(1), seen.amax(1), front], 1), embedding)

    def _shadow(self, condition: torch.Tensor, cameras: Cameras) -> torch.Tensor:
        """What the condition alone says of each view, (B, N, H, W): the silhouette of the cylinder that it is a section
        of, at the views' full resolution. Seen along z it is the condition itself."""
        batch, height, width = condition.shape
        size = self.config.volume_size
        axes = [(torch.arange(n, device=condition.device) + 0.5) * (2 / n) - 1 for n in (size, height, width)]
        depth, v, u = torch.meshgrid(*axes, indexing="ij")
        points = cameras.world(depth, torch.stack([v, u], -1))[..., 1:].flip(-1)  # (N, D, H, W, 2)
        seen = _bilinear(condition[:, None], points.reshape(1, -1, width, 2).expand(batch, -1, -1, -1))
        return seen.view(batch, len(cameras), size, height, width).amin(2)

    def _read_frusta(self, volume: torch.Tensor, cameras: Cameras, shape: tuple[int, int]) -> torch.Tensor:
        """What each pixel sees of the volume along its ray, (B·N, C, H, W)."""
        batch, size = len(volume), self.config.volume_size
        axis = (torch.arange(size, device=volume.device) + 0.5) * (2 / size) - 1
        depth, v, u = torch.meshgrid(axis, axis, axis, indexing="ij")
        read = trilinear(volume, cameras.world(depth, torch.stack([v, u], -1)).flip(-1))  # (B, C, N, G, G, G)
        read = read.transpose(1, 2).reshape(batch * len(cameras), -1, size, size)
        return F.interpolate(self.frustum(read), size=shape, mode="bilinear", align_corners=False)


def _bilinear(maps: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """`F.grid_sample` in float32, in which places are exact, and which a CPU has vector code for."""
    return F.grid_sample(maps.float(), grid.float(), padding_mode="border", align_corners=False).to(maps.dtype)


class _VolumeNetwork(torch.nn.Module):
    """A small 3D U-Net that knows the time step."""

    def __init__(self, inputs: int, channels: tuple[int, int], width: int):
        super().__init__()
        full, half = channels
        self.enter = torch.nn.Conv3d(inputs, full, 1)
        self.first = _VolumeBlock(full, width)
        self.down = torch.nn.Conv3d(full, half, 2, stride=2)
        self.middle = torch.nn.ModuleList([_VolumeBlock(half, width), _VolumeBlock(half, width)])
        self.up = torch.nn.ConvTranspose3d(half, full, 2, stride=2)
        self.last = _VolumeBlock(full, width)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        skip = self.first(self.enter(x), embedding)
        x = self.down(skip)
        for block in self.middle:
            x = block(x, embedding)
        return self.last(skip + self.up(x), embedding)


class _VolumeBlock(torch.nn.Module):
    """Residual 3D convolutions, shifted by the time embedding."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.norm1, self.norm2 = torch.nn.GroupNorm(8, channels), torch.nn.GroupNorm(8, channels)
        self.conv1 = torch.nn.Conv3d(channels, channels, 3, padding=1)
        self.conv2 = torch.nn.Conv3d(channels, channels, 3, padding=1)
        self.shift = torch.nn.Linear(width, channels)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        y = self.conv1(F.silu(self.norm1(x))) + self.shift(F.silu(embedding))[..., None, None, None]
        return x + self.conv2(F.silu(self.norm2(y)))
