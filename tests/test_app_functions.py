"""What lies behind the page of `cascade app`: arrays in, arrays out, without a browser."""

import asyncio
import runpy
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile
from conftest import ellipse, field_of_view

from cascade.annotation import Annotation
from cascade.app import page, painters, requests, scenes, settings
from cascade.app.drawing import COLOURS, cells_of_mask, labels_of_drawing
from cascade.app.pairs import fit_command, look_at_pairs
from cascade.app.uploads import check_files, read_mask


def colour(number: int) -> tuple[int, ...]:
    return tuple(int(COLOURS[number][n : n + 2], 16) for n in (1, 3, 5))


def drawn(*strokes, shape=(80, 80)) -> np.ndarray:
    """A layer of the editor with strokes (mask, colour)."""
    layer = np.zeros((*shape, 4), np.uint8)
    for mask, number in strokes:
        layer[mask] = (*colour(number), 255)
    return layer


def square(y, x, side=12, shape=(80, 80)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[y : y + side, x : x + side] = True
    return mask


def test_strokes_of_one_colour_that_touch_are_one_cell_and_of_two_colours_two():
    labels, slips = labels_of_drawing(
        [drawn((square(5, 5), 0), (square(5, 17), 0), (square(40, 5), 1), (square(40, 17), 2), (square(5, 60), 0))]
    )
    assert labels.max() == 4
    assert slips == 0
    assert labels[6, 6] == labels[6, 20]
    assert labels[41, 6] != labels[41, 20]
    assert sorted(np.bincount(labels.ravel())[1:]) == [144, 144, 144, 288]


def test_soft_edges_make_no_cells_of_their_own():
    """Where two colours meet, and where a stroke fades, pixels are mixed into colours of other strokes."""
    layer = drawn((square(20, 20, 15), 0), (square(20, 36, 15), 3)).astype(float)
    layer[20:35, 35] = (*(0.5 * (np.array(colour(0)) + np.array(colour(3)))), 255)
    layer[19, 20:35] = (*(0.6 * np.array(colour(0))), 200)
    layer[18, 20:35] = (*colour(4), 90)
    labels, _ = labels_of_drawing([layer.astype(np.uint8)])
    assert labels.max() == 2
    assert labels[19, 25] == labels[25, 25]
    assert not labels[18].any()
    assert (labels[20:35, 35] > 0).all()


def test_a_closed_outline_is_filled_but_for_the_cell_in_it():
    ring = ellipse((80, 80), (40, 40), (25, 25)) & ~ellipse((80, 80), (40, 40), (20, 20))
    labels, _ = labels_of_drawing([drawn((ring, 0), (square(36, 36, 8), 1))])
    assert labels.max() == 2
    inner = labels[40, 40]
    assert (labels == inner).sum() == 64
    assert ((labels > 0) == ellipse((80, 80), (40, 40), (25, 25))).all()


def test_the_upper_layer_wins_and_slips_are_counted():
    labels, slips = labels_of_drawing([drawn((square(5, 5, 20), 0), (square(60, 60, 2), 1)), drawn((square(5, 5), 1))])
    assert slips == 1
    assert sorted(np.bincount(labels.ravel())[1:]) == [144, 400 - 144]


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([], "nothing is drawn"),
        ([drawn()], "nothing is drawn"),
        ([drawn((square(4, 4, 3), 0))], "too small for a cell"),
        ([np.zeros((1300, 1300, 4), np.uint8)], "1300×1300 pixels, and the page paints up to 1.5 million"),
    ],
)
def test_a_drawing_without_a_cell_is_refused_in_one_line(layers, said):
    with pytest.raises(ValueError, match=said) as error:
        labels_of_drawing(layers)
    assert "\n" not in str(error.value)


def test_more_strokes_than_the_page_paints_are_refused():
    layer = np.zeros((200, 200, 4), np.uint8)
    grid = np.zeros((200, 200), bool)
    for y in range(0, 196, 5):
        for x in range(0, 196, 5):
            grid[y : y + 4, x : x + 4] = True
    layer[grid] = (*colour(0), 255)
    with pytest.raises(ValueError, match="holds 1600 cells, and the page paints up to 1000"):
        labels_of_drawing([layer])


def test_a_mask_is_taken_as_it_is():
    labels = np.zeros((40, 40), np.int32)
    labels[3:9, 3:9], labels[9:15, 3:9] = 7, 900_000
    assert np.unique(cells_of_mask(labels)).tolist() == [0, 1, 2]
    assert ((cells_of_mask(labels) > 0) == (labels > 0)).all()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.zeros((20, 20), np.uint8), "holds no cell"),
        (np.zeros((4, 20, 20), np.uint8), "a stack"),
        (np.pad(np.kron([[5, 0, 5], [0, 8, 0]], np.ones((3, 3))), 1).astype(int), "several pieces, id 5 for one"),
        (np.arange(1, 10_001).reshape(100, 100), "holds 10000 cells, and the page paints up to 1000"),
    ],
)
def test_masks_that_cannot_be_painted_are_refused_in_one_line(labels, said):
    with pytest.raises(ValueError, match=said):
        cells_of_mask(labels)


def test_an_uploaded_mask_is_read_and_gone(tmp_path):
    labels = np.zeros((30, 30), np.uint16)
    labels[4:20, 4:20] = 1
    for name, write in (("one.tif", tifffile.imwrite), ("one.png", iio.imwrite)):
        path = tmp_path / name
        write(path, labels.astype(np.uint8))
        assert (read_mask(path) == labels).all()
        assert not path.exists()


def png_head(width: int, height: int) -> bytes:
    """The first bytes of a PNG that says it is so large."""
    return b"\x89PNG\r\n\x1a\n" + bytes(3) + b"\rIHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes(9)


def test_uploads_that_cannot_be_used_are_refused_without_their_folder_and_gone(tmp_path, monkeypatch):
    monkeypatch.setattr("cascade.app.uploads.MAX_FILE_MB", 0.05)
    binary = np.zeros((30, 30), np.uint8)
    binary[3:10, 3:10] = binary[15:25, 15:25] = 255
    cases = {
        "text.png": (b"no image at all", "cannot be read"),
        "text.tif": (b"no image at all", "cannot be read"),
        "photo.jpg": (b"\xff\xd8\xff", "export TIFF or PNG"),
        "large.png": (png_head(10_000, 10_000), "100 megapixels, and the page takes 16"),
        "heavy.tif": (bytes(60_000), "0 MB, and the page takes 0.05"),
        "binary.png": (iio.imwrite("<bytes>", binary, extension=".png"), "a binary mask of several cells"),
        "cut.png": (iio.imwrite("<bytes>", binary, extension=".png")[:60], "cannot be read"),
    }
    for name, (content, said) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=said) as error:
            read_mask(tmp_path / name)
        assert str(error.value).startswith(name)
        assert str(tmp_path) not in str(error.value)
        assert not (tmp_path / name).exists()


def test_a_tiff_of_a_hundred_megapixels_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "sky.tif"
    tifffile.imwrite(path, np.zeros((10_000, 10_000), np.uint8), compression="zlib")
    assert path.stat().st_size < 1e6
    with pytest.raises(ValueError, match=r"sky\.tif: 100 megapixels"):
        check_files([path])
    with pytest.raises(ValueError, match="61 files, and the page takes 60 at once"):
        check_files([path] * 61)


@pytest.fixture
def pairs(tmp_path):
    """Two annotated planes and one without a mask, as they are dropped."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "dropped"
    folder.mkdir()
    for name in ("a", "b"):
        image, labels = field_of_view(rng)
        tifffile.imwrite(folder / f"{name}.tif", image)
        tifffile.imwrite(folder / f"{name}_masks.tif", labels)
    tifffile.imwrite(folder / "c.tif", image)
    return sorted(folder.iterdir())


def test_dropped_pairs_show_their_crops_what_was_left_out_and_the_command(pairs):
    labels = [tifffile.imread(path) for path in pairs if "masks" in path.name]
    cut = sum(len(np.unique(np.r_[one[0], one[-1], one[:, 0], one[:, -1]])) - 1 for one in labels)
    whole = sum(int(one.max()) for one in labels) - cut
    found = look_at_pairs(pairs, spacing_um=(0.65, 0.65))
    assert found.used == whole
    assert found.crops.ndim == 3
    assert found.crops.std() > 10
    assert any(f"{cut} cells cut by the border" in note for note in found.notes) or cut == 0
    assert any("1 images without annotation" in note for note in found.notes)
    assert found.command == "cascade fit my_images --output_dir my_cells --spacing_um 0.65 0.65"
    assert not any(path.exists() for path in pairs)


def test_pairs_that_cannot_be_used_are_gone_too_and_their_folder_is_not_named(pairs):
    tifffile.imwrite(pairs[0], np.zeros((50, 40), np.uint16))
    with pytest.raises(ValueError, match=r"my_images/a_masks.tif: shape \(160, 160\) does not fit") as error:
        look_at_pairs(pairs)
    assert "/tmp" not in str(error.value)
    assert not any(path.exists() for path in pairs)
    with pytest.raises(ValueError, match="drop images with their masks"):
        look_at_pairs([])


def test_the_command_is_one_that_fit_takes():
    from cascade.commands.cli import flags_of

    words = fit_command(crop_size=96, pixel_size_um=1.3, spacing_um=(1.75, 0.8, 0.8), sparse=True).split()
    (asked,) = flags_of("fit").parse(words[2:])
    assert (asked.crop_size, asked.pixel_size_um, asked.spacing_um, asked.sparse) == (96, 1.3, (1.75, 0.8, 0.8), True)


def test_the_embedded_models_for_planes_are_found_without_loading_them():
    names = painters.painters()
    assert {"nuclei2d", "sketch2d"} <= set(names)
    assert "nuclei3d" not in names
    assert painters.paints_sketches(names[0])
    with pytest.raises(ValueError, match="nuclei3d paints stacks"):
        painters.painters("nuclei3d")


@pytest.mark.parametrize("painter", ["sketch2d", "nuclei2d"])
def test_a_drawing_becomes_an_image_that_shows_it(painter):
    layer = drawn(*[(ellipse((96, 96), (25 + 44 * (n // 2), 25 + 44 * (n % 2)), (14, 11)), n) for n in range(4)],
                  shape=(96, 96))  # fmt: skip
    image, labels, made, said = requests.paint({"layers": [layer]}, None, painter, 0, 2, 3)
    sample = made.sample
    assert made.made_by == painter
    assert image.shape == (96, 96)
    assert labels.shape == (96, 96, 3)
    assert said == "4 cells in 96×96"
    inside = sample.labels > 0
    assert sample.image[inside].mean() > 1.3 * sample.image[~inside].mean()
    again = requests.paint(None, sample.labels.astype(np.uint16), painter, 0, 2, 3)
    assert np.array_equal(again[2].sample.image, sample.image)
    other = requests.paint(None, sample.labels.astype(np.uint16), painter, 0, 2, 4)
    assert not np.array_equal(other[2].sample.image, sample.image)


def test_t_start_reaches_the_painter():
    labels = np.zeros((64, 64), np.uint16)
    labels[20:45, 20:45] = 1
    near, far = (requests.paint(None, labels, "sketch2d", start, 2, 0)[0] for start in (50, 600))
    assert not np.array_equal(near, far)
    with pytest.raises(ValueError, match="seed must be a whole number from 0"):
        requests.paint(None, labels, "sketch2d", 0, 2, -1)
    with pytest.raises(ValueError, match="t_start must be a whole number from 0 to 1000, got None"):
        requests.paint(None, labels, "sketch2d", None, 2, 0)


def test_a_population_has_as_many_cells_as_were_asked_for(monkeypatch):
    image, _, made, said = requests.populate("sketch2d", 5, 0.5, 160, 0, True)
    assert said == "5 cells in 160×160"
    assert image.shape == (160, 160)
    assert np.unique(made.sample.labels).size == 6
    with pytest.raises(ValueError, match="ask for fewer"):
        requests.populate("sketch2d", 60, 0.0, 128, 0, True)
    with pytest.raises(ValueError, match="canvas must be a whole number from 128 to 1024"):
        requests.populate("sketch2d", 5, 0.5, 5000, 0, True)


def test_a_cascade_makes_populations_of_a_bank(monkeypatch):
    monkeypatch.setattr(painters, "BANK", 3)
    painters._bank.cache_clear()
    first, second = (requests.populate("nuclei2d", 4, 0.3, 128, seed, True)[2].sample for seed in (0, 1))
    painters._bank.cache_clear()
    assert len(first.cells) == 4
    assert not np.array_equal(first.image, second.image)


def test_an_organism_is_shown_as_labels_as_a_sketch_and_painted():
    small = {"canvas_size": (96, 96), "num_cells": (3.0,), "radius_um": (8.0, 9.0)}
    scene = scenes.simulate("nuclei", 1)
    assert len(scene.cells) == 30
    kind = scenes.ORGANISMS["nuclei"]
    scene = kind.simulate()(np.random.default_rng(0), kind.settings_class()(**small))
    assert scenes.shown(scene, "labels", "sketch2d").image is None
    sketch, painted = (scenes.shown(scene, look, "sketch2d").image for look in ("sketch", "painted"))
    inside = scene.labels > 0
    assert sketch[inside].min() > sketch[~inside].min()
    assert painted[inside].mean() > painted[~inside].mean()
    coarse = Annotation.of_labels(scene.labels, (1.0, 1.0))
    with pytest.raises(ValueError, match="this model paints voxels of"):
        scenes.shown(coarse, "painted", "sketch2d")
    with pytest.raises(ValueError, match="there is no organism whale"):
        scenes.simulate("whale")


def test_an_emptied_field_is_what_it_stands_for():
    *_, said = requests.in_one_line(requests.look, 4)([], None, None, "", False)
    assert "drop" in said or "image" in said


def test_a_download_holds_image_and_labels(tmp_path):
    labels = np.zeros((40, 40), np.uint16)
    labels[5:25, 5:25] = 1
    sample = scenes.Sample(np.full((40, 40), 9, np.uint16), Annotation.of_labels(labels, (0.65, 0.65)), 5)
    for format, name in (("cellpose", "train/sample_000000_masks.tif"), ("ctc", "01_GT/SEG/man_seg000.tif")):
        path = requests.download(requests.Made(sample, "sketch2d"), format, tmp_path / format)
        with zipfile.ZipFile(path) as packed:
            assert any(b'"source": "sketch2d"' in packed.read(one) for one in packed.namelist() if "dataset" in one)
            packed.extract(name, tmp_path)
            assert (tifffile.imread(tmp_path / name) == labels).all()
        assert [one.name for one in (tmp_path / format).iterdir()] == [path.name]
    with pytest.raises(ValueError, match="nothing to download yet"):
        requests.download(None, "ctc", tmp_path)


def test_mistakes_are_one_line_and_others_are_raised():
    def fails(error):
        raise error

    assert requests.in_one_line(fails, 3)(ValueError("first\nsecond")) == (None, None, "first second")
    assert requests.in_one_line(fails, 2)(MemoryError())[-1].startswith("not enough memory")
    with pytest.raises(RuntimeError):
        requests.in_one_line(fails, 2)(RuntimeError("a mistake of ours"))


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="port must be"):
        settings.AppSettings(port=-1)
    with pytest.raises(ValueError, match="numbers in µm"):
        settings.lengths("voxel size", "wide")


def test_gradio_is_not_imported_before_the_page_is_asked_for():
    code = "import cascade, cascade.commands.cli as c, sys; c.main(['--help']); print('gradio' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "False"
    assert "  app " in ran.stdout


def test_the_space_serves_the_same_page(monkeypatch):
    served = []
    monkeypatch.setattr("cascade.app.page.serve", served.append)
    runpy.run_path(str(Path(__file__).parents[1] / "space" / "app.py"), run_name="__main__")
    assert served == [settings.AppSettings(host="0.0.0.0")]


def test_a_request_beyond_all_sizes_is_refused_and_browsers_fetch_nothing_from_elsewhere():
    async def site(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    def answered(length: bytes) -> dict:
        sent = []

        async def send(message):
            sent.append(message)

        asyncio.run(page.guarded(site)({"type": "http", "headers": [(b"content-length", length)]}, None, send))
        return sent[0]

    assert answered(b"1000")["status"] == 200
    assert b"default-src 'self'" in dict(answered(b"1000")["headers"])[b"content-security-policy"]
    assert answered(b"600000000")["status"] == 413
    assert answered(b"much")["status"] == 413


def test_an_address_in_use_is_refused_in_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ValueError, match=r"cannot be listened on .*: give another --port"):
            page._listening("127.0.0.1", taken.getsockname()[1])
