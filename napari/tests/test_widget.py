"""The dock widget in a real window: layers in, a fit in its own process, layers out; stop, mistakes."""

import json
import os
import shutil

import numpy as np
import psutil
import pytest
import tifffile
from conftest import why_no_window
from napari.layers import Layer
from PIL import Image

from cascade import embedded
from cascade.hub.statistics import saved_statistics
from napari_cascade import widget as module
from napari_cascade.widget import FITTED, CascadeWidget

pytestmark = pytest.mark.skipif(why_no_window() is not None, reason=str(why_no_window()))
SECONDS = 240_000  # to wait for at most, in ms
SCREENSHOT = os.environ.get("CASCADE_NAPARI_SCREENSHOT")  # docs/napari.png, to make it anew
TRAIN = os.environ.get("CASCADE_NAPARI_TRAIN")  # give the widget's fit its trainings, too
PREPARE_ONLY = ("mask", "texture", "assemble", "generate", "evaluate")


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer()


@pytest.fixture
def dock(viewer, tmp_path, monkeypatch):
    _, found = viewer.window.add_plugin_dock_widget("napari-cascade", "Fit, generate, export")
    assert isinstance(found, CascadeWidget)
    found.folder.value = tmp_path / "my_cells"
    found.output.value = tmp_path / "set"
    found.canvas.value, found.num_cells.value, found.bank.value = "96 112", 2, 3
    monkeypatch.setattr(module, "SKIPPED", PREPARE_ONLY)  # trainings are tested by the package, and take minutes
    return found


@pytest.fixture
def annotated(viewer, plane):
    image, labels = plane
    viewer.add_image(image, scale=(0.5, 0.5), name="nuclei")
    labels = np.where(labels <= 6, labels, 0)
    return viewer.add_labels(labels, scale=(0.5, 0.5), name="cells")


def done(dock, qtbot):
    qtbot.waitUntil(lambda: dock.fit.enabled, timeout=SECONDS)
    return dock.said.value


def test_layers_in_layers_out(viewer, dock, annotated, qtbot, tmp_path):
    assert (dock.image_layer.value.name, dock.labels_layer.value) == ("nuclei", annotated)
    dock.fit.changed.emit(True)
    assert dock.stop.enabled
    assert not dock.generate.enabled
    folder = tmp_path / "my_cells"
    assert done(dock, qtbot) == f"the model is {folder / 'model'}: Generate makes images with it"
    plan = json.loads((folder / "fit.json").read_text())["plan"]
    assert (plan["sparse"], plan["spacing_um"], plan["budget"]) == ("True", "(0.5, 0.5)", "10.0")
    written = tifffile.imread(folder / "annotated" / "01_GT" / "SEG" / "man_seg000.tif")
    np.testing.assert_array_equal(written, annotated.data)
    assert json.loads((folder / "crops" / "statistics.json").read_text())["spacing_um"] == [0.5, 0.5]

    assert dock.model.value == FITTED
    dock.generate.changed.emit(True)
    assert "holds no model yet" in dock.said.value
    shutil.copytree(embedded("nuclei2d"), folder / "model")  # in the place of one that was trained
    dock.num_images.value = 2
    dock.generate.changed.emit(True)
    said = done(dock, qtbot)
    image, labels = viewer.layers[-2:]
    assert image.data.shape == labels.data.shape == (2, 96, 112)
    np.testing.assert_allclose(image.scale, [1, *saved_statistics(folder / "model")["spacing_um"]])
    np.testing.assert_allclose(labels.scale, image.scale)
    cells = sum(len(np.unique(plane)) - 1 for plane in labels.data)
    assert said == f"2 images with {cells} cells"

    labels.data[0, :3, :3] = 77  # what is changed in the viewer is what is exported
    dock.format.value = "stardist"
    dock.export.changed.emit(True)
    assert done(dock, qtbot) == f"2 images in {tmp_path / 'set'} (stardist)"
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "set/masks/sample_000000.tif"), labels.data[0])
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "set/images/sample_000001.tif"), image.data[1])
    viewer.open(str(tmp_path / "set"), plugin="napari-cascade")
    np.testing.assert_array_equal(viewer.layers[-1].data, labels.data)
    np.testing.assert_allclose(viewer.layers[-1].scale, labels.scale)


def test_a_fit_is_stopped_and_goes_on(dock, annotated, qtbot, tmp_path):
    dock.fit.changed.emit(True)
    qtbot.waitUntil(lambda: "prepare" in dock.said.value, timeout=SECONDS)
    dock.stop.changed.emit(True)
    said = done(dock, qtbot)
    assert said.startswith(f"stopped: what is finished is kept in {tmp_path / 'my_cells'}: Fit goes on from there")
    assert f"cascade fit {tmp_path / 'my_cells' / 'annotated'} --output_dir {tmp_path / 'my_cells'}" in said
    assert not [one for one in psutil.Process().children(recursive=True) if "fit" in one.cmdline()]
    annotated.data = np.flipud(annotated.data)
    dock.fit.changed.emit(True)
    assert "holds other images or labels than these" in done(dock, qtbot)


@pytest.mark.skipif(not TRAIN, reason="trains for minutes: CASCADE_NAPARI_TRAIN=1 asks for it")
def test_a_fit_trains_is_stopped_in_the_texture_and_goes_on(viewer, dock, nuclei, qtbot, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SKIPPED", ("generate", "evaluate"))
    for data, options, kind in nuclei:
        viewer.add_layer(Layer.create(data, options, kind))
    dock.minutes.value, folder = 1, tmp_path / "my_cells"
    dock.fit.changed.emit(True)
    qtbot.waitUntil(lambda: any((folder / "stages" / "texture").glob("checkpoint-*")), timeout=10 * SECONDS)
    dock.stop.changed.emit(True)
    assert done(dock, qtbot).startswith(f"stopped: what is finished is kept in {folder}")
    dock.fit.changed.emit(True)
    qtbot.waitUntil(lambda: dock.fit.enabled, timeout=10 * SECONDS)
    assert dock.said.value == f"the model is {folder / 'model'}: Generate makes images with it"
    dock.num_images.value = 2
    dock.generate.changed.emit(True)
    assert done(dock, qtbot).startswith("2 images with")
    np.testing.assert_allclose(viewer.layers[-1].scale, viewer.layers[0].scale, rtol=0.01)


def test_generating_is_stopped(viewer, dock, qtbot):
    dock.num_images.value = 1000
    dock.generate.changed.emit(True)
    qtbot.waitUntil(lambda: "of 1000" in dock.said.value and "image 1 of" not in dock.said.value, timeout=SECONDS)
    dock.stop.changed.emit(True)
    assert done(dock, qtbot).startswith("stopped: Generate begins anew; images that were finished are shown")
    assert 1 <= len(viewer.layers[-1].data) < 1000


def test_mistakes_are_one_line_and_napari_lives(viewer, dock, plane, qtbot, monkeypatch):
    def said(action):
        action.changed.emit(True)
        line = done(dock, qtbot)
        assert "\n" not in line
        return line

    image, labels = plane
    assert said(dock.fit) == "choose an Image and a Labels layer: open or make one first"
    assert said(dock.export).startswith("there is nothing to export yet")
    viewer.add_image(np.stack([image] * 3)[None], name="movie")
    cells = viewer.add_labels(np.stack([labels] * 3)[None], name="cells")
    assert said(dock.fit).startswith("movie has 4 axes (1, 3, 160, 160)")
    viewer.layers.clear()
    viewer.add_image(image, name="nuclei")
    cells = viewer.add_labels(labels[:100], name="cells")
    assert said(dock.fit) == "cells has shape (100, 160), nuclei (160, 160): labels must be as large as their image"
    cells.data = np.zeros_like(labels)
    assert said(dock.fit).startswith("cells is empty")
    cells.data = image.astype(int)
    assert "man_seg000.tif" in said(dock.fit)  # what only the package finds out, in its process
    dock.voxel_size.value = "half"
    cells.data = labels
    assert said(dock.fit).startswith("voxel size must be numbers")
    dock.canvas.value = "96"
    assert said(dock.generate).startswith("canvas_size must be")
    dock.canvas.value = "4 96 112"
    assert "canvas_size" in said(dock.generate)
    dock.canvas.value, dock.model.value = "96 112", FITTED
    assert "holds no model yet" in said(dock.generate)
    assert len(viewer.layers) == 2


def test_layers_of_the_plugin_say_what_their_first_axis_is(viewer, dock, plane):
    image, _ = plane
    assert not dock.separate.value
    viewer.add_image(np.stack([image] * 3), axis_labels=("image", "y", "x"), name="three")
    dock.image_layer.value = viewer.layers["three"]
    assert dock.separate.value
    viewer.add_image(np.stack([image] * 3), name="stack")
    dock.image_layer.value = viewer.layers["stack"]
    assert not dock.separate.value


def test_the_window_shows_both(viewer, dock, nuclei, qtbot, tmp_path):
    for data, options, kind in nuclei:
        viewer.add_layer(Layer.create(data, options, kind))
    assert dock.separate.value
    dock.canvas.value, dock.num_cells.value, dock.num_images.value, dock.bank.value = "256 256", 20, 2, 6
    dock.generate.changed.emit(True)
    assert done(dock, qtbot).startswith("2 images with")
    generated = viewer.layers[-1]
    assert str(generated.units[-1]) == "micrometer"  # as the sample's layers have
    np.testing.assert_allclose(generated.scale, viewer.layers[0].scale)
    viewer.window._qt_window.resize(1280, 1040)
    viewer.grid.enabled, viewer.grid.stride, viewer.grid.shape = True, -2, (2, 1)
    viewer.dims.set_point(0, 0)
    for layer in (viewer.layers[1], generated):
        layer.contour = 2
    viewer.reset_view(margin=0.01)
    dock.folder.value, dock.output.value = "/images/my_cells", "/images/my_dataset"
    shown = viewer.window.screenshot(flash=False)
    assert shown[..., :3].std() > 20
    if SCREENSHOT:
        Image.fromarray(shown[..., :3]).quantize(200).save(SCREENSHOT, optimize=True)


def test_every_format_can_be_chosen(dock):
    from cascade.export.formats import FORMATS

    assert set(dock.format.choices) == set(FORMATS)
