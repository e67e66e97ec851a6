import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ball_stack
from made_up import labelled_images

from cascade.evaluation.checks import check_apart, check_sets
from cascade.evaluation.labelled import LabelledImage
from cascade.evaluation.settings import EvaluateSettings
from cascade.evaluation.sources import Source


def test_sets_that_share_an_image_are_refused():
    train, test = labelled_images(0), labelled_images(1)
    check_apart(train, test)
    with pytest.raises(ValueError, match="1 of 4 test images are also training images"):
        check_apart(train, [*test, train[1]])
    stack = LabelledImage(np.stack([one.image for one in train]), np.stack([one.labels for one in train]), (1, 1, 1))
    with pytest.raises(ValueError, match="also training images"):
        check_apart(train[:1], [stack])  # a slice of a test stack
    converted = [replace(train[1], image=train[1].image.astype(dtype)) for dtype in (np.int32, np.float64)]
    with pytest.raises(ValueError, match="2 of 2"):
        check_apart(train, converted)
    scaled = [replace(one, image=one.image.astype(dtype) / 1000) for one, dtype in zip(train, "fd", strict=False)]
    with pytest.raises(ValueError, match="1 of 1"):
        check_apart(scaled[:1], [replace(train[0], image=train[0].image / 1000)])


def test_what_is_apart_is_told_by_what_images_show(ctc_sparse_3d, tmp_path):
    shutil.copytree(ctc_sparse_3d, tmp_path / "set")
    seg = tmp_path / "set" / "01_GT" / "SEG"
    (first, *_) = sorted(seg.iterdir())
    shutil.copyfile(first, seg / "man_seg_000_020.tif")  # another slice of the same stack
    found = Source(tmp_path / "set", spacing_um=(2, 1, 1)).load()
    assert {one.image.shape for one in found} == {(96, 96)}
    with pytest.raises(ValueError, match="1 of 6 test images are also"):
        check_apart(found[:1], found[1:])
    check_apart(found[:2], found[2:])
    padded = [np.pad(one.whole, ((2, 2), (0, 0), (0, 0)), constant_values=7) for one in found[1:3]]
    check_apart(*([LabelledImage(stack, stack * 0, (2, 1, 1))] for stack in padded))


def test_sets_that_mix_planes_and_stacks_are_refused():
    plane = labelled_images(0, 1)[0]
    stack = LabelledImage(*ball_stack(np.random.default_rng(0)), (2.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="synthetic holds planes and stacks: give sets of one kind"):
        check_sets({"real_test": labelled_images(1), "synthetic": [plane, stack]}, {"synthetic"})


def test_stacks_are_tested_on_stacks(ctc_sparse_3d):
    slices = Source(ctc_sparse_3d, spacing_um=(2, 1, 1)).load()
    stack = LabelledImage(*ball_stack(np.random.default_rng(7)), (2.0, 1.0, 1.0))
    with pytest.raises(ValueError, match=r"whole annotated stacks.*--real_test_truth st"):
        check_sets({"real_train": slices[3:], "real_test": slices[:3], "synthetic": [stack]}, {"synthetic"})


def compared(**fields):
    return EvaluateSettings(**dict(real_train="a", real_test="b", synthetic=["c"], output_dir="report") | fields)


def test_synthetic_sets_have_names_of_their_own(tmp_path):
    folder = tmp_path / "rho=0.7"
    folder.mkdir()
    assert compared(synthetic=["a/synthetic", f"{folder}", "scratch=b/synthetic"]).synthetic_folders() == {
        "synthetic": Path("a/synthetic"), "rho=0.7": folder, "scratch": Path("b/synthetic"),
    }  # fmt: skip
    for wrong in (["a/x", "b/synthetic"], ["a", "c/d", "e/d"]):
        with pytest.raises(ValueError, match="as NAME=FOLDER"):
            compared(synthetic=wrong)


def test_a_sparse_setting_needs_something_real():
    found = compared(sparse=["real=a", "synthetic=b=c"]).sparse_folders()
    assert found == {"real": Path("a"), "synthetic": Path("b=c")}
    for wrong in (["synthetic=a"], ["a"], ["real=a", "real=b"]):
        with pytest.raises(ValueError, match="each name once"):
            compared(sparse=wrong)
