"""Samples in memory: those of `cascade generate`, what is told meanwhile, and how it is stopped."""

import numpy as np
import pytest
import tifffile

from cascade.commands.cli import main
from cascade.generation.samples import generate_samples
from cascade.hub.folders import ModelError
from cascade.population.settings import CascadeSettings

SMALL = CascadeSettings(canvas_size=(96, 112), cells_per_image=2)


@pytest.mark.parametrize("bank", [None, 3])
def test_they_are_those_that_the_command_writes(bank, tmp_path):
    told = []
    made = list(generate_samples(settings=SMALL, num_images=2, seed=5, bank=bank, few_steps=True, tell=told.append))
    words = ["generate", "--output_dir", str(tmp_path / "out"), "--num_images", "2", "--seed", "5", "--few_steps"]
    words += ["--canvas_size", "96", "112", "--cells_per_image", "2"] + (["--bank", str(bank)] if bank else [])
    assert main(words) == 0
    for n, sample in enumerate(made):
        np.testing.assert_array_equal(sample.image, tifffile.imread(tmp_path / "out" / "01" / f"t{n:03d}.tif"))
        labels = tifffile.imread(tmp_path / "out" / "01_GT" / "SEG" / f"man_seg{n:03d}.tif")
        np.testing.assert_array_equal(sample.labels, labels)
    assert told[0] == "loading the model"
    assert told[1] == ("bank, from cell 1 of 3: 3 cells: outlines" if bank else "image 1 of 2: 2 cells: outlines")
    assert told[-1] == "image 2 of 2: population"


def test_what_is_raised_meanwhile_stops_it():
    class Enough(Exception):
        pass

    def tell(what):
        if "texture" in what:
            raise Enough

    with pytest.raises(Enough):
        list(generate_samples(settings=SMALL, few_steps=True, tell=tell))


def test_what_cannot_be_is_said_before_anything_is_loaded(tmp_path):
    for wrong in ({"num_images": 0}, {"bank": 0}):
        with pytest.raises(ValueError, match="whole number from 1, got 0"):
            generate_samples(**wrong)
    with pytest.raises(ModelError, match="nowhere"):
        generate_samples(tmp_path / "nowhere")
