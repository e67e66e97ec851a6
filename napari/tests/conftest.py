"""A display where there is none, and a made-up plane and stack with their labels."""

import ctypes
import importlib
import itertools
import os
import shutil
import subprocess

import numpy as np
import pytest

_LIBRARIES = ("libxcb-cursor.so.0", "libxcb-icccm.so.4", "libxcb-keysyms.so.1")  # of Qt, which aborts without them
_started = []

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("QT_API", "pyqt6")
os.environ.setdefault("NAPARI_CONFIG", "")  # nobody's own settings


def pytest_configure(config):
    """Without napari there is nothing to be tested; Xvfb ends with the tests."""
    try:
        importlib.import_module("napari.layers")  # napari alone is the name of this folder, too
    except ImportError:
        pytest.exit("napari is not installed: make napari-test makes an environment that has it", returncode=0)
    if os.environ.get("DISPLAY") or not shutil.which("Xvfb"):
        return
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", "1600x1200x24", "-nolisten", "tcp"]
    _started.append(subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL))
    os.close(writing)
    with os.fdopen(reading) as told:
        os.environ["DISPLAY"] = f":{told.readline().strip()}"


def pytest_unconfigure(config):
    for process in _started:
        process.terminate()
        process.wait()


def pytest_report_header(config):
    return None if why_no_window() is None else f"tests of the window are skipped: {why_no_window()}"


def why_no_window():
    """What is missing for a window, None where nothing is."""
    if not os.environ.get("DISPLAY"):
        return "no display: apt-get install xvfb"
    for name in _LIBRARIES:
        try:
            ctypes.CDLL(name)
        except OSError:
            return f"Qt needs {name}: apt-get install libxcb-cursor0 libxcb-icccm4 libxcb-keysyms1"
    return None


def discs(shape=(160, 160), seed=0):
    """Bright discs on a grid, and their labels, uint16."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape[-2:])
    labels = np.zeros(shape[-2:], np.uint16)
    rows, columns = (range(24, side - 20, 36) for side in shape[-2:])
    for n, (cy, cx) in enumerate(itertools.product(rows, columns)):
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= rng.uniform(8, 12) ** 2] = n + 1
    if len(shape) == 3:
        labels = np.stack([labels if 0 < z < shape[0] - 1 else np.zeros_like(labels) for z in range(shape[0])])
    image = rng.poisson(100 + 300 * (labels > 0)) + rng.normal(0, 4, shape)
    return image.clip(0).astype(np.uint16), labels


@pytest.fixture
def plane():
    return discs()


@pytest.fixture(scope="session")
def nuclei():
    """The sample, as layers."""
    from napari_cascade.samples import nuclei30

    return nuclei30()
