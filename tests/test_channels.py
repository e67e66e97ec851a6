"""Images of several channels: drawn, trained, painted, tuned, written and read again."""

import io
import json
from dataclasses import replace

import datasets
import numpy as np
import pytest
import tifffile
import zarr
from conftest import field_of_view
from made_up import tiny_sketch_pipeline
from scipy import ndimage
from toy_training import run_script

from cascade.annotation import Annotation, Sample
from cascade.commands.cli import main
from cascade.evaluation.settings import EvaluateSettings
from cascade.evaluation.sources import Source, synthetic_sources
from cascade.export.preview import sample_picture
from cascade.export.save import save_samples
from cascade.optics.vary import Microscope
from cascade.optics.window import Window
from cascade.pipelines.sketch_ddpm import SketchPipeline
from cascade.reading import DataError, read_channels, read_image
from cascade.rng import stream
from cascade.sketch.channels import draw_channels, of_record, record_of
from cascade.sketch.draw import asked, draw_sketch
from cascade.sketch.settings import SketchSettings
from cascade.training import train_sketch_ddpm

DIM = SketchSettings(brightness=(50.0, 90.0), background=(100.0,), nucleoli=(2.0,))
BRIGHT = SketchSettings(brightness=(400.0, 900.0), background=(300.0,), nucleoli=(1.0,), nucleolus_light=(0.0,))


def scene(size=(64, 64), cells: int = 5) -> Annotation:
    labels = field_of_view(np.random.default_rng(0), size, cells)[1]
    return Annotation.of_labels(labels.astype(np.uint16), (0.5, 0.5))


def sample(dimensions: int) -> Sample:
    """Two channels of which every voxel tells its channel and its place."""
    labels = scene().labels
    labels, spacing = (labels, (0.5, 0.5)) if dimensions == 2 else (np.stack([labels] * 6), (2.0, 0.5, 0.5))
    image = (np.arange(labels.size).reshape(labels.shape) % 20_000).astype(np.uint16)
    return Sample(np.stack([image, image + 30_000]).astype(np.uint16), Annotation.of_labels(labels, spacing))


def test_a_channel_is_drawn_by_its_own_rules():
    annotation = scene()
    told, both = draw_channels(annotation, [DIM, BRIGHT], 7, 3)
    assert both.shape == (2, *annotation.labels.shape)
    outside = annotation.labels == 0
    assert (both[0][outside] == 100).all()
    assert (both[1][outside] == 300).all()
    for cell in told.cells:
        assert 150 <= cell.brightness <= 190
        assert both[1][annotation.labels == cell.label].max() >= 700
    np.testing.assert_array_equal(both[0], draw_sketch(annotation, DIM, stream(7, "sketch", 3)))
    again = draw_channels(annotation, [replace(DIM, background=(0.0,)), BRIGHT], 7, 3)[1]
    np.testing.assert_array_equal(again[1], both[1])


def test_one_channel_is_as_it_was():
    annotation = scene()
    told, sketch = draw_channels(annotation, [BRIGHT], 7, 3)
    np.testing.assert_array_equal(sketch, draw_sketch(annotation, BRIGHT, stream(7, "sketch", 3)))
    wanted = asked(annotation, BRIGHT, stream(7, "sketch", 3))
    assert [one.row(2) for one in told.cells] == [one.row(2) for one in wanted.cells]


def test_dark_spots_lie_at_the_same_places_in_all_channels():
    told, both = draw_channels(scene(), [DIM, BRIGHT], 7, 3)
    spots = [spot for cell in told.cells for spot in cell.nucleoli]
    assert len(spots) > len(told.cells)
    for y, x, _ in spots:  # in the other channel nothing is left of the light there
        assert both[1][round(2 * y), round(2 * x)] == 300


def test_no_dark_spots_are_drawn_where_a_channel_has_none():
    annotation = scene()
    even = replace(BRIGHT, brightness=(500.0,), nucleoli=(0.0,))
    both = draw_channels(annotation, [DIM, even], 7, 3)[1]
    assert (both[1][annotation.labels > 0] == 800).all()


def test_brightness_is_of_the_channel_that_shows_the_cells():
    annotation = scene()
    given = replace(annotation, cells=tuple(replace(cell, brightness=200.0) for cell in annotation.cells))
    for number, cell_channel in enumerate((1, 2)):
        told, both = draw_channels(given, [DIM, replace(DIM, nucleoli=(0.0,))], 0, 0, cell_channel)
        means = [[channel[annotation.labels == cell.label].mean() for cell in annotation.cells] for channel in both]
        assert means[number] == pytest.approx([200.0] * len(means[0]), rel=1e-4)
        assert np.ptp(means[1 - number]) > 5
        assert all(cell.brightness == 200 for cell in told.cells)


@pytest.mark.parametrize(
    ("record", "channels", "message"),
    [
        (DIM.record(), 2, "sketches have 1 channels, the images 2"),
        (record_of([DIM, BRIGHT]), 3, "sketches have 2 channels, the images 3"),
        (record_of([DIM, BRIGHT], 3), 2, "cell_channel must be a number from 1 to 2, got 3"),
    ],
)
def test_records_that_do_not_fit_are_refused(record, channels, message):
    with pytest.raises(ValueError, match=message):
        of_record(json.loads(json.dumps(record)), channels)


TIFFS = {
    "ctc": "01/t000.tif",
    "cellpose": "{}/sample_000000.tif",
    "stardist": "images/sample_000000.tif",
    "ome-tiff": "images/sample_000000.ome.tif",
}


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", TIFFS)
def test_tiffs_hold_the_channels_as_their_readers_have_them(name, dimensions, tmp_path):
    one = sample(dimensions)
    path = save_samples([one], tmp_path, (name,)) / TIFFS[name].format({2: "train", 3: "stacks"}[dimensions])
    with tifffile.TiffFile(path) as file:
        axes, stored = file.series[0].axes, file.asarray()
    assert axes == ("CYX" if dimensions == 2 else "CZYX" if name == "ome-tiff" else "ZCYX")
    np.testing.assert_array_equal(np.moveaxis(stored, axes.index("C"), 0), one.image)
    np.testing.assert_array_equal(read_channels(path, 2), one.image)
    for number in (1, 2):
        np.testing.assert_array_equal(read_image(path, str(number)), one.image[number - 1])


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("name", ["ctc", "nnunet", "ome-zarr", "stardist"])
def test_a_channel_of_a_data_set_is_read_again(name, dimensions, tmp_path):
    one = sample(dimensions)
    save_samples([one], tmp_path, (name,))
    for number in (1, 2):
        (found,) = Source(tmp_path, channel=str(number)).load()
        np.testing.assert_array_equal(found.image, one.image[number - 1])
        np.testing.assert_array_equal(found.labels > 0, one.labels > 0)
        assert found.spacing_um == one.spacing_um


def test_planes_for_cellpose_hold_the_channels(tmp_path):
    one = sample(3)
    save_samples([one], tmp_path, ("cellpose",))
    planes = sorted((tmp_path / "train").glob("*_xy*[0-9].tif"))
    assert len(planes) == 6
    for z, path in enumerate(planes):
        np.testing.assert_array_equal(tifffile.imread(path), one.image[:, z])


@pytest.mark.parametrize("dimensions", [2, 3])
def test_zarr_says_which_axis_they_are(dimensions, tmp_path):
    one = sample(dimensions)
    group = zarr.open_group(str(save_samples([one], tmp_path, ("ome-zarr",)) / "sample_000000.ome.zarr"), mode="r")
    (told,) = group.attrs["ome"]["multiscales"]
    assert [axis["name"] for axis in told["axes"]] == ["c", *"zyx"[-dimensions:]]
    assert told["axes"][0]["type"] == "channel"
    assert told["datasets"][0]["coordinateTransformations"][0]["scale"] == [1.0, *one.spacing_um]
    np.testing.assert_array_equal(group["0"][:], one.image)
    np.testing.assert_array_equal(group["labels/cells/0"][:], one.labels)


def test_zarr_pyramids_keep_them(tmp_path):
    labels = np.zeros((700, 600), np.uint16)
    image = np.random.default_rng(0).integers(0, 9000, (2, 700, 600)).astype(np.uint16)
    whole = Sample(image, Annotation.of_labels(labels, (0.5, 0.5)))
    group = zarr.open_group(str(save_samples([whole], tmp_path, ("ome-zarr",)) / "sample_000000.ome.zarr"), mode="r")
    np.testing.assert_array_equal(group["1"][:], image[:, ::2, ::2])


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_hub_data_set_holds_them(dimensions, tmp_path):
    one = sample(dimensions)
    folder = save_samples([one], tmp_path, ("huggingface",))
    (row,) = datasets.load_dataset("parquet", data_files=str(folder / "data" / "*.parquet"), split="train")
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(row["image"]["bytes"])), one.image)
    labels = np.array(row["labels"]) if dimensions == 2 else tifffile.imread(io.BytesIO(row["labels"]["bytes"]))
    np.testing.assert_array_equal(labels, one.labels)
    assert "gives 2 channels" in (folder / "README.md").read_text()


def test_nnunet_is_told_of_every_channel(tmp_path):
    folder = save_samples([sample(2)], tmp_path, ("nnunet",))
    assert list(json.loads((folder / "dataset.json").read_text())["channel_names"]) == ["0", "1"]
    assert len(list(folder.glob("imagesTr/*_000[01].tif"))) == 2


def test_coco_has_no_channels(tmp_path):
    with pytest.raises(ValueError, match="COCO's pictures have one channel"):
        save_samples([sample(2)], tmp_path, ("coco",))
    assert not list(tmp_path.iterdir())


def test_a_picture_shows_each_in_a_colour():
    labels = np.zeros((32, 32), np.uint16)
    image = np.zeros((2, 32, 32), np.uint16)
    image[0, :16], image[1, 16:] = 1000, 500
    picture = sample_picture(Sample(image, Annotation.of_labels(labels, (0.5, 0.5))))
    green, magenta = picture[5, 5], picture[-20, 5]
    assert green[1] > 2 * max(green[0], green[2])
    assert min(magenta[0], magenta[2]) > 2 * magenta[1]


def test_a_large_plane_is_shown_smaller():
    labels = np.zeros((2, 300, 6150), np.uint16)
    labels[1, 100:200, 4000:5000] = 1
    rng = np.random.default_rng(0)
    light = rng.permuted(np.tile(np.arange(9, dtype=np.uint16), (2, 300, 6150 // 9 + 1)), axis=-1)[..., :6150]
    picture = sample_picture(Sample(light + 100 * labels, Annotation.of_labels(labels, (4.0, 0.5, 0.5))))
    image, outlined = picture[:75, :1537], picture[-81:-6, :1537]  # of each four pixels one
    assert image[26:49, 1001:1249].min() > 0.9
    assert image[30:45, :990].max() < 0.5
    np.testing.assert_array_equal(np.flatnonzero((outlined != image).any((1, 2)))[[0, -1]], [25, 49])
    np.testing.assert_array_equal(np.flatnonzero((outlined != image).any((0, 2)))[[0, -1]], [1000, 1249])


def test_an_image_of_another_size_is_refused():
    one = sample(2)
    with pytest.raises(ValueError, match="the image has shape"):
        replace(one, image=one.image[:, :60])
    with pytest.raises(ValueError, match="the image has shape"):
        replace(one, image=one.image[:1])
    assert len(one.channels) == 2
    assert replace(one, image=None).channels == ()


def test_a_microscope_changes_all_of_them():
    image = np.stack([np.full((4, 4), 300.0), np.full((4, 4), 500.0)]).astype(np.float32)
    windows = [Window(100, 1100), Window(400, 600)]  # a fifth as wide, so the offset is
    seen = Microscope(gain=2.0, offset=5.0).of_image(image, windows)
    assert seen[:, 0, 0].tolist() == [505.0, 601.0]
    inside = np.zeros((4, 4), bool)
    inside[1] = True
    sketch = np.stack([np.where(inside, 300.0, 100.0), np.where(inside, 450.0, 400.0)]).astype(np.float32)
    seen = Microscope(background=0.5).of_sketch(sketch, inside, (0.5, 0.5))
    assert seen[:, 0, 0].tolist() == [200.0, 425.0]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Cells in the second channel, and dimmer in the first one."""
    folder = tmp_path_factory.mktemp("raw") / "stains"
    folder.mkdir()
    for n in range(3):
        image, labels = field_of_view(np.random.default_rng(n), (96, 96), 6)
        other = np.random.default_rng(n).poisson(np.where(labels > 0, 90, 30))
        tifffile.imwrite(
            folder / f"{n}.tif", np.stack([other, image]).astype(np.uint16), imagej=True,
            metadata={"axes": "CYX", "unit": "um", "mode": "composite"}, resolution=(2.0, 2.0),
        )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def trained(raw, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "model"
    few = ["--max_train_steps", "1", "--preview_steps", "1", "--train_batch_size", "1", "--channels", "2"]
    options = ["--data", raw, "--output_dir", folder, *few, "--cell_channel", "2"]
    run_script(train_sketch_ddpm, "tiny_sketch_ddpm", *options)
    return folder


def test_a_training_reads_how_each_is_drawn(trained):
    pipeline = SketchPipeline.from_pretrained(trained)
    dim, bright = pipeline.sketch_settings
    assert pipeline.cell_channel == 2
    assert np.median(dim.background) == pytest.approx(30, abs=3)
    assert np.median(dim.brightness) == pytest.approx(60, rel=0.2)
    assert np.median(bright.brightness) > 200


def test_labels_are_read_once_for_all_channels(raw, tmp_path):
    """Also where another channel shows far more than is labelled, and where some images have no labels."""
    for path in sorted(raw.glob("*.tif")):
        image = tifffile.imread(path)
        labels = field_of_view(np.random.default_rng(int(path.stem)), (96, 96), 6)[1]
        puncta = np.random.default_rng(0).random((96, 96)) > 0.99
        image[0] = 30 + 4000 * ndimage.gaussian_filter(puncta.astype(np.float32), 1)
        (tmp_path / "data").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / "data" / path.name, image, metadata={"axes": "CYX"}, photometric="minisblack")
        if path.stem != "1":
            tifffile.imwrite(tmp_path / "data" / f"{path.stem}_masks.tif", labels.astype(np.uint16))
    few = ["--max_train_steps", "1", "--preview_steps", "1", "--train_batch_size", "1", "--channels", "2"]
    options = ["--data", tmp_path / "data", "--output_dir", tmp_path / "model", *few, "--cell_channel", "2"]
    run_script(train_sketch_ddpm, "tiny_sketch_ddpm", *options, "--sketch", "gt", "--spacing_um", "0.5", "0.5")
    puncta, cells = SketchPipeline.from_pretrained(tmp_path / "model").sketch_settings
    assert np.median(cells.brightness) > 200
    assert np.median(puncta.brightness) < 100  # a cell's mean, not a spot's light


def test_a_channel_that_shows_no_cells_is_named(tmp_path, capsys):
    for n in range(2):
        image = field_of_view(np.random.default_rng(n), (64, 64), 4)[0].astype(np.uint16)
        blank = np.random.default_rng(n).poisson(10, image.shape).astype(np.uint16)
        tifffile.imwrite(tmp_path / f"{n}.tif", np.stack([image, blank]), imagej=True, metadata={"axes": "CYX"})
    words = ["train", "sketch", "--config", "configs/tiny_sketch_ddpm.yaml", "--data", str(tmp_path), "--channels", "2"]
    assert ended(*words, "--spacing_um", "1", "1", "--cell_channel", "2", "--output_dir", str(tmp_path / "m")) == 1
    said = capsys.readouterr().err
    assert "channel 1: no cell is known" in said
    assert "or look for cells in another `cell_channel`, or give `sketch` none" in said


def ended(*words) -> int:
    with pytest.raises(SystemExit) as raised:
        main(list(words))
    return raised.value.code


def test_labels_of_a_set_of_channels_are_painted_anew(tmp_path):
    save_samples([sample(2)], tmp_path / "set", ("nnunet",))
    tiny_sketch_pipeline().save_pretrained(tmp_path / "model")
    words = ["generate", "--model", str(tmp_path / "model"), "--annotations", str(tmp_path / "set")]
    how = ["--t_start", "20", "--num_inference_steps", "1", "--output_dir", str(tmp_path / "new")]
    assert main([*words, *how]) == 0
    assert Source(tmp_path / "new").load()[0].image.shape == (64, 64)


def test_an_evaluation_names_the_setting_of_generated_images(tmp_path):
    save_samples([sample(2)], tmp_path / "set", ("ctc",))
    how = dict(real_test=tmp_path, synthetic=(str(tmp_path / "set"),), output_dir=tmp_path / "report")
    with pytest.raises(DataError, match=r"choose .* `synthetic_channel`"):
        synthetic_sources(EvaluateSettings(**how))["synthetic"].load()
    with pytest.raises(DataError, match="of this set it cannot be said: save that channel alone"):
        Source(tmp_path / "set", channel_setting="").load()
    (found,) = synthetic_sources(EvaluateSettings(**how, synthetic_channel="2"))["synthetic"].load()
    np.testing.assert_array_equal(found.image, sample(2).image[1])


def test_a_command_paints_them(trained, tmp_path, capsys):
    words = ["generate", "--model", trained, "--simulate", "nuclei", "--canvas_size", "64", "80", "--num_images", "2"]
    how = ["--t_start", "20", "--num_inference_steps", "1", "--output_dir", tmp_path / "set"]
    assert main(list(map(str, [*words, *how, "--format", "ome-tiff"]))) == 0
    (_, second) = sorted((tmp_path / "set" / "images").iterdir())
    image = read_channels(second, 2)
    assert image.shape == (2, 64, 80)
    labels = Source(tmp_path / "set", channel="1").load()[1].labels
    means = [[one[labels > 0].mean(), one[labels == 0].mean()] for one in image]
    assert means[0][1] < 80 < means[1][0]
    again = ["--only", "1"]
    assert main(list(map(str, [*words, *how, "--format", "ome-tiff", *again]))) == 0
    assert main(list(map(str, [*words, *how[:-1], tmp_path / "coco", "--format", "coco"]))) == 2
    assert "COCO's pictures have one channel" in capsys.readouterr().err


def test_a_model_of_them_is_tuned(trained, raw, tmp_path, capsys):
    words = ["tune", raw, "--model", trained, "--t_start", "20", "60", "--sigma", "0", "--num_images", "2"]
    assert main(list(map(str, [*words, "--output_dir", tmp_path / "out"]))) == 0
    record = json.loads((tmp_path / "out" / "tune.json").read_text())
    assert record["images"] == 2
    assert record["structure_of_real_images"] > 0.5
    assert main(list(map(str, [*words, "--channel", "1", "--output_dir", tmp_path / "no"]))) == 2
    assert "leave --channel out" in capsys.readouterr().err


def test_the_same_bytes_whoever_paints():
    pipeline, annotation = tiny_sketch_pipeline(2, 2), scene()
    forth = [pipeline.paint(annotation, 5, n).image for n in (0, 1)]
    back = [pipeline.paint(annotation, 5, n).image for n in (1, 0)]
    assert [one.tobytes() for one in forth] == [one.tobytes() for one in reversed(back)]
    assert forth[0].shape == (2, 64, 64)
    called = pipeline(annotation, generator=None)
    assert called.samples[0].image.shape == (2, 64, 64)
