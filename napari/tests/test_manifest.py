"""The manifest, and the sample that it offers."""

import subprocess
import sys

import numpy as np
from npe2 import PluginManifest

import cascade


def test_what_the_manifest_names_is_there():
    manifest = PluginManifest.from_distribution("napari-cascade")
    manifest.validate_imports()
    assert manifest.display_name == "Cascade"
    assert manifest.contributions.readers[0].accepts_directories
    assert [one.display_name for one in manifest.contributions.sample_data] == ["Thirty outlined nuclei"]
    assert [one.display_name for one in manifest.contributions.widgets] == ["Fit, generate, export"]


def test_opening_napari_does_not_wait_for_torch():
    code = "import sys, napari_cascade.widget, napari_cascade.reader; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_thirty_outlined_nuclei(nuclei):
    (image, options, kind), (labels, _, label_kind) = nuclei
    assert (kind, label_kind) == ("image", "labels")
    assert image.shape == labels.shape == (3, 256, 256)
    assert sum(len(np.unique(plane)) - 1 for plane in labels) == 30
    statistics = cascade.CascadePipeline.from_pretrained("nuclei2d").statistics
    assert options["scale"] == [1.0, *statistics.spacing_um]
