"""Whether raw images show bright cells or bright membranes: on simulated ones, at several sizes of pixels, and real."""

import numpy as np
import pytest
import tifffile
from conftest import field_of_view
from scipy import ndimage

from cascade import SketchSettings, TissueSettings, draw_sketch, tissue
from cascade.commands import fit_raw
from cascade.commands.cli import main
from cascade.commands.settings import FitSettings
from cascade.data.conditioned import read_annotated
from cascade.data.like import like
from cascade.data.seen import look_at
from cascade.data.sketches import fit_sketch
from cascade.data.structure import shown_structure
from cascade.data.tissue_detection import detect_tissue
from cascade.evaluation.segmentation import score
from cascade.export.annotations import annotation_path, load_annotation
from cascade.reading import DataError, read_image

WALLS = SketchSettings(
    structure="membranes", brightness=(400.0,), background=(100.0,), thickness_um=0.8, softness_um=0.3, interior=(0.15,)
)


def of_tissue(sides, spacing, seed=0, noise=40.0):
    """An image of a simulated tissue, and its labels."""
    rng = np.random.default_rng(seed)
    own = TissueSettings(canvas_size=sides, spacing_um=spacing, diameter_um=(7.0, 9.0, 11.0))
    scene = tissue(rng, own)
    light = draw_sketch(scene, WALLS, rng).astype(float)
    return (light + rng.normal(0, noise, sides)).clip(0).astype(np.uint16), scene.labels


def of_nuclei(count, seed=0):
    return field_of_view(np.random.default_rng(seed), (160, 180), count)[0]


@pytest.mark.parametrize("zoom", [0.7, 1.0, 3.0])
def test_membranes_are_told_from_cells_at_any_size_of_pixels(zoom):
    walls, cells = of_tissue((140, 150), (0.3, 0.3))[0], of_nuclei(14)
    assert shown_structure([ndimage.zoom(walls.astype(float), zoom)]) == "membranes"
    assert shown_structure([ndimage.zoom(cells.astype(float), zoom)]) == "cells"


def test_crowded_cells_are_cells():
    """Packed so closely that there are only gaps between them: the walls' image the other way round."""
    walls = of_tissue((140, 150), (0.3, 0.3))[0].astype(float)
    assert shown_structure([walls.max() - walls]) == "cells"


def test_dark_cells_on_a_bright_ground_are_cells():
    cells = of_nuclei(14).astype(float)
    assert shown_structure([cells.max() - cells]) == "cells"


def test_where_nothing_can_be_told_it_is_cells():
    noise = np.random.default_rng(0).normal(100, 5, (96, 96))
    for images in ([], [np.zeros((64, 64))], [np.full((9, 40, 40), 7)], [np.ones((5, 6))], [noise]):
        assert shown_structure(images) == "cells"


@pytest.fixture(scope="module")
def stacks(tmp_path_factory):
    """A folder of raw stacks of a tissue, and the labels of one."""
    folder = tmp_path_factory.mktemp("tissue")
    made = [of_tissue((24, 120, 120), (0.5, 0.3, 0.3), seed) for seed in (0, 1)]
    for n, (image, _) in enumerate(made):
        tifffile.imwrite(
            folder / f"t{n}.tif", image, imagej=True, resolution=(1 / 0.3, 1 / 0.3),
            metadata={"unit": "um", "spacing": 0.5, "axes": "ZYX"},
        )  # fmt: skip
    return folder, made[0][1]


def test_raw_membranes_are_a_tissue_to_all_that_look_at_them(stacks):
    folder, labels = stacks
    seen = look_at(folder)
    assert seen.structure == "membranes"
    assert len(np.unique(seen.labels[0])) - 1 == pytest.approx(len(np.unique(labels)), rel=0.2)
    alike = like(folder)
    assert alike.organism == "tissue"
    assert np.median(alike.tissue_settings().diameter_um) == pytest.approx(9, rel=0.15)
    assert fit_sketch(folder).structure == "membranes"
    assert fit_sketch(folder).thickness_um == pytest.approx(0.8, abs=0.35)
    assert read_annotated(folder).sketch.structure == "membranes"
    auto = FitSettings(folder, output_dir=folder / "out", simulate="auto")
    assert fit_raw.base_of(auto) == "membrane3d"


def test_planes_of_a_tissue_are_a_tissue(tmp_path):
    tifffile.imwrite(tmp_path / "t0.tif", of_tissue((200, 220), (0.3, 0.3))[0])
    seen = like(tmp_path, spacing_um=(0.3, 0.3))
    assert seen.organism == "tissue"
    assert np.median(seen.tissue_settings().diameter_um) == pytest.approx(9, rel=0.15)


@pytest.mark.parametrize("noise", [10.0, 40.0, 100.0])
def test_cells_between_membranes_are_found_in_noise(noise):
    image, labels = of_tissue((200, 220), (0.3, 0.3), 1, noise)
    found = detect_tissue(image, (0.3, 0.3))
    assert found.max() == pytest.approx(labels.max(), rel=0.2)
    assert score([labels], [found]).seg > 0.85


def test_what_is_asked_for_goes_before_what_is_shown(stacks, tmp_path):
    assert look_at(stacks[0], structure="cells").structure == "cells"
    image, labels = of_tissue((140, 150), (0.3, 0.3))
    with pytest.raises(DataError, match="borders between cells are no brighter than cells"):
        fit_sketch([image.max() - image], [labels], spacing_um=(0.3, 0.3), structure="membranes")


@pytest.mark.parametrize(
    ("files", "shown"),
    [
        ("BBBC039/01/t00*.tif", "cells"),
        ("BBBC050/01/*.tif", "cells"),
        ("Fluo-N2DH-GOWT1/01/t00*.tif", "cells"),
        ("ovule_nuclei/????.tif", "cells"),
        ("root_membrane/root.tif", "membranes"),
        ("root_unlabelled/root.tif", "membranes"),
        ("ovule_membrane/membrane.tif", "membranes"),
    ],
)
def test_real_images_show_what_they_are(real_data, files, shown):
    found = sorted(real_data.glob(files))[:4]
    if not found:
        pytest.skip(f"no {files} in the folder of real data")
    assert {shown_structure([read_image(path)]) for path in found} == {shown}


def test_a_tissue_is_simulated_like_images_of_one(stacks, tmp_path):
    words = ["simulate", "tissue", "--like", str(stacks[0]), "--output_dir", str(tmp_path / "alike")]
    assert main(words) == 0
    made = load_annotation(annotation_path(tmp_path / "alike", 0))
    assert made.labels.shape == stacks[1].shape
    assert len(np.unique(made.labels)) == pytest.approx(len(np.unique(stacks[1])), rel=0.3)
