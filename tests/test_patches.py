import numpy as np
import pytest
import tifffile
import torch
from skimage import io

from cascade.data.frames import DataError
from cascade.data.patches import PatchDataset, fit_window
from cascade.optics.window import Window

WIDE = Window(0, 65535, 1.0)


def counted(shape, start=0):
    """An image whose every voxel has its own value."""
    return (start + np.arange(np.prod(shape))).reshape(shape).astype(np.uint16)


def images_of(folder, shapes):
    folder.mkdir()
    arrays = [counted(shape, 10_000 * n) for n, shape in enumerate(shapes)]
    for n, array in enumerate(arrays):
        if n == 1 and array.ndim == 2:
            io.imsave(folder / f"{n}.PNG", array, check_contrast=False)
        else:
            tifffile.imwrite(
                folder / f"{n}.tif", array, photometric="minisblack", metadata={"axes": "ZYX"[-array.ndim :]}
            )
    return arrays


@pytest.mark.parametrize(
    ("shapes", "size"), [([(20, 24), (9, 40), (8, 12)], (8, 12)), ([(6, 12, 10), (4, 8, 30)], (4, 8, 10))]
)
def test_patches_are_parts_of_their_images_and_cover_them(tmp_path, shapes, size):
    arrays = images_of(tmp_path / "data", shapes)
    patches = PatchDataset(tmp_path / "data", size, windows=[WIDE])
    covered = [np.zeros(shape, bool) for shape in shapes]
    places = set()
    batch = patches[list(range(600))]["image"]
    assert batch.shape == (600, 1, *size)
    assert batch.dtype == torch.float32
    for n in range(600):
        number, region = patches.place(n)
        assert covered[number][region].shape == size
        covered[number][region] = True
        places.add((number, tuple(part.start for part in region)))
        values = np.round((batch[n, 0].numpy().astype(np.float64) + 1) / 2 * 65535)
        np.testing.assert_array_equal(values, arrays[number][region])
    assert all(seen.all() for seen in covered)
    total = sum(np.prod([a - b + 1 for a, b in zip(shape, size, strict=True)]) for shape in shapes)
    assert len(places) > 0.9 * min(total, 600 * 0.5)


def test_every_place_is_as_likely(tmp_path):
    images_of(tmp_path / "data", [(10, 10), (10, 16)])  # 9 places and 27
    patches = PatchDataset(tmp_path / "data", (8, 8))
    share = np.mean([patches.place(n)[0] for n in range(4000)])
    assert share == pytest.approx(0.75, abs=0.03)


def test_a_patch_depends_on_seed_and_number_alone(tmp_path):
    images_of(tmp_path / "data", [(30, 30), (40, 30)])
    one, again = (PatchDataset(tmp_path / "data", (8, 8)) for _ in range(2))
    again[[5, 2, 9]]
    assert torch.equal(one[[3, 4]]["image"], again[[4, 3]]["image"].flip(0))
    assert one.fingerprint == again.fingerprint
    other = PatchDataset(tmp_path / "data", (8, 8), seed=1)
    assert not torch.equal(one[[3, 4]]["image"], other[[3, 4]]["image"])
    assert one.fingerprint != other.fingerprint
    tifffile.imwrite(tmp_path / "data" / "0.tif", counted((30, 30), 1))
    assert PatchDataset(tmp_path / "data", (8, 8)).fingerprint != one.fingerprint


def test_the_window_fits_the_images(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.normal(1000, 50, (200, 200)).astype(np.float32) for _ in range(2)]
    images[0][0, 0] = 1e6  # a hot pixel
    window = fit_window(images)
    assert window.low == pytest.approx(1000 - 3.09 * 50, abs=15)
    assert window.high == pytest.approx(1000 + 3.29 * 50, abs=20)
    tifffile.imwrite(tmp_path / "a.tif", images[1])
    batch = PatchDataset([tmp_path / "a.tif"], (64, 64))[[0]]["image"]
    assert batch.min() >= -1
    assert batch.max() <= 1
    assert batch.std() > 0.1


def test_images_that_cannot_be_are_named(tmp_path):
    with pytest.raises(DataError, match="no images"):
        PatchDataset(tmp_path, (8, 8))
    tifffile.imwrite(tmp_path / "a.tif", counted((30, 6)))
    with pytest.raises(DataError, match=r"a.tif: of shape \(30, 6\), smaller than a patch of \(8, 8\)"):
        PatchDataset(tmp_path, (8, 8))
    with pytest.raises(DataError, match="give as many axes"):
        PatchDataset(tmp_path / "a.tif", (8, 8, 8))
    for size in ((8,), (0, 8), (1, 1, 1, 1)):
        with pytest.raises(ValueError, match="patch_size must be"):
            PatchDataset(tmp_path, size)
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    with pytest.raises(DataError, match=r"a.tif: cannot be read"):
        PatchDataset(tmp_path, (8, 8))
    tifffile.imwrite(tmp_path / "a.tif", np.full((30, 30), 7, np.uint8))
    (tmp_path / "._a.tif").write_bytes(b"of another system")
    with pytest.raises(DataError, match="no contrast"):
        PatchDataset(tmp_path, (8, 8))


def test_a_training_on_patches_resumes_exactly(tmp_path):
    from toy_training import train

    images_of(tmp_path / "data", [(30, 30), (40, 30)])
    data = PatchDataset(tmp_path / "data", (8, 8))

    class Mean(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.level, self.seen = torch.nn.Parameter(torch.zeros(())), []

        def forward(self, batch, generator):
            self.seen.append(batch["image"].sum().item())
            return (batch["image"] - self.level).square().mean()

    whole, _ = train(tmp_path / "whole", dataset=data, module=Mean())
    train(tmp_path / "cut", dataset=data, module=Mean(), stop_after=18)
    again = PatchDataset(tmp_path / "data", (8, 8))
    rest, _ = train(tmp_path / "cut", dataset=again, module=Mean(), resume_from_checkpoint="latest")
    assert rest.seen == whole.seen[16:]
    assert torch.equal(rest.level, whole.level)
