"""The training of the conditional GAN: it makes a model, goes on exactly, in pairs or not, and says what goes wrong."""

import json
import logging

import numpy as np
import pytest
import tifffile
import torch
from safetensors.torch import load_file
from test_sketch_pipeline import scene
from toy_training import run_script

from cascade.commands.cli import main
from cascade.data.conditioned import ConditionedPatches, read_annotated
from cascade.gan.augmentation import AdaptiveAugmentation
from cascade.gan.collapse import Watch
from cascade.gan.losses import DiscriminatorLoss
from cascade.pipelines.conditional_gan import ConditionalGANPipeline
from cascade.reading import DataError
from cascade.training import train_gan
from cascade.training.loop import TrainingDiverged

FEW = ["--max_train_steps", "4", "--preview_steps", "4", "--train_batch_size", "1"]
SPACING = (1.0, 0.5, 0.5)


def write_pairs(folder, shapes, *, labelled=True, spacing=SPACING):
    """Bright balls with noise, and their labels."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for n, shape in enumerate(shapes):
        labels = scene(shape, SPACING[-len(shape) :], seed=n).labels
        image = rng.poisson(np.where(labels > 0, 900.0 + 40 * labels, 200.0)).astype(np.uint16)
        tifffile.imwrite(folder / f"x{n}.tif", image)
        if labelled:
            tifffile.imwrite(folder / f"x{n}_masks.tif", labels)
    (folder / "dataset.json").write_text(json.dumps({"spacing_um": list(spacing)}))
    return folder


def write_labels(folder, shapes, spacing=SPACING):
    folder.mkdir(parents=True)
    for n, shape in enumerate(shapes):
        tifffile.imwrite(folder / f"y{n}_masks.tif", scene(shape, SPACING[-len(shape) :], seed=50 + n).labels)
    if spacing:
        (folder / "dataset.json").write_text(json.dumps({"spacing_um": list(spacing)}))
    return folder


@pytest.fixture(scope="module")
def planes(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs") / "planes", [(48, 64), (40, 40), (64, 48)])


@pytest.fixture(scope="module")
def trained(planes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "model"
    run_script(train_gan, "tiny_gan", "--data", planes, "--output_dir", folder, "--augmentation_interval", "2", *FEW)
    return folder


def test_a_training_makes_a_model_of_pairs(trained):
    pipeline = ConditionalGANPipeline.from_pretrained(trained)
    assert pipeline.spacing_um == (0.5, 0.5)
    assert pipeline.config.dtype == "uint16"
    assert (pipeline.config.condition, pipeline.config.alpha) == ("binary", 100.0)
    assert pipeline.window.low < 200 < 900 < pipeline.window.high
    assert pipeline.sketch_settings.structure == "cells"
    assert pipeline.generator.last.weight.abs().max() > 0  # it learnt something
    assert pipeline(scene((40, 48))).images[0].shape == (40, 48)
    card = (trained / "README.md").read_text()
    assert "planes, licence: not stated" in card
    assert "ConditionalGANPipeline" in card
    assert "accuracy of the discriminator" in card
    assert str(trained) not in card
    assert (trained / "preview_000004.png").read_bytes()[:4] == b"\x89PNG"
    assert (trained / "discriminator" / "diffusion_pytorch_model.safetensors").is_file()
    pickled = {path.suffix for path in trained.rglob("*") if path.is_file()} & {".bin", ".pt", ".pkl", ".pth"}
    assert not pickled


def test_a_checkpoint_holds_both_networks_their_moments_and_averages_and_the_augmentation(trained):
    names = {path.stem for path in (trained / "checkpoint-4").glob("*.safetensors")}
    moments = {"generator_moments", "discriminator_moments"}
    averages = {"generator_average", "discriminator_average"}
    assert names == {"generator", "discriminator", "augmentation"} | moments | averages
    state = json.loads((trained / "checkpoint-4" / "training_state.json").read_text())
    assert state["parts"]["augmentation"]["dict"]["seen"] == 4


def test_it_goes_on_to_the_same_bytes(planes, tmp_path):
    options = ["--lr_scheduler", "constant", "--augmentation_interval", "1", "--augmentation_target", "-0.9"]
    folders = [tmp_path / "whole", tmp_path / "cut"]
    words = ["--data", planes, *options]
    stopped = ["--max_train_steps", "2", "--preview_steps", "4", "--train_batch_size", "1"]
    run_script(train_gan, "tiny_gan", "--output_dir", folders[0], *words, *FEW)
    run_script(train_gan, "tiny_gan", "--output_dir", folders[1], *words, *stopped)
    resume = ["--resume_from_checkpoint", "latest"]
    run_script(train_gan, "tiny_gan", "--output_dir", folders[1], *words, *FEW, *resume)
    for name in ("generator", "discriminator"):
        weights = [folder / name / "diffusion_pytorch_model.safetensors" for folder in folders]
        assert weights[0].read_bytes() == weights[1].read_bytes()
    states = [json.loads((f / "checkpoint-4" / "training_state.json").read_text())["parts"] for f in folders]
    assert states[0]["augmentation"] == states[1]["augmentation"]
    assert states[0]["augmentation"]["dict"]["p"] > 0
    assert (folders[0] / "preview_000004.png").read_bytes() == (folders[1] / "preview_000004.png").read_bytes()


def test_annotations_of_their_own_are_learnt_without_pairs(planes, tmp_path):
    labels = write_labels(tmp_path / "labels", [(48, 48), (40, 56)])
    words = ["--data", planes, "--annotations", labels, "--condition", "sketch", "--output_dir", tmp_path / "model"]
    run_script(train_gan, "tiny_gan", *words, *FEW)
    assert ConditionalGANPipeline.from_pretrained(tmp_path / "model").config.condition == "sketch"


@pytest.mark.parametrize(
    "options",
    [
        ["--position", "false"],
        ["--augmentation", "false"],
        ["--identity_weight", "0"],
        ["--pair_weight", "0", "--noise", "false", "--objective", "paper"],
    ],
)
def test_every_ablation_trains(options, planes, tmp_path):
    few = ["--max_train_steps", "1", "--preview_steps", "1", *options]
    run_script(train_gan, "tiny_gan", "--data", planes, "--output_dir", tmp_path, *few)
    pipeline = ConditionalGANPipeline.from_pretrained(tmp_path)
    assert pipeline.generator.config.in_channels == 3 - (options[1] == "false" and options[0] == "--position") - (
        "--noise" in options
    )


def test_stacks_without_labels_are_learnt_from_the_cells_that_are_found(tmp_path):
    data = write_pairs(tmp_path / "data", [(12, 40, 40), (10, 36, 48)], labelled=False)
    size = ["--patch_size", "8", "16", "16", "--max_train_steps", "1", "--preview_steps", "1"]
    run_script(train_gan, "tiny_gan", "--data", data, "--output_dir", tmp_path / "model", *size)
    pipeline = ConditionalGANPipeline.from_pretrained(tmp_path / "model")
    assert pipeline.spacing_um == SPACING
    assert pipeline.generator.config.dimensions == 3
    assert pipeline.sketch_settings.brightness[-1] > 300  # of cells that were found


def test_a_model_is_gone_on_with(planes, trained, tmp_path):
    few = ["--max_train_steps", "1", "--preview_steps", "1", "--learning_rate", "1e-9", "--base_model", trained]
    run_script(train_gan, "tiny_gan", "--data", planes, "--output_dir", tmp_path, *few)
    for name in ("generator", "discriminator"):
        before, after = (load_file(f / name / "diffusion_pytorch_model.safetensors") for f in (trained, tmp_path))
        assert all(torch.allclose(before[key], after[key], atol=1e-6) for key in before)


def test_patches_of_a_pair_are_of_one_place(planes):
    data = read_annotated(planes)
    patches = ConditionedPatches(data, (16, 24), seed=3)
    batch = patches[list(range(40))]
    assert {name: tuple(values.shape) for name, values in batch.items()} == {
        name: (40, 1, 16, 24) for name in ("image", "annotation", "image_position", "annotation_position")
    }
    for image, annotation in zip(batch["image"], batch["annotation"], strict=True):
        if annotation.unique().numel() == 2:  # cells are bright
            assert image[annotation > 0].min() > image[annotation < 0].max()
    assert torch.equal(batch["image_position"], batch["annotation_position"])
    again = ConditionedPatches(data, (16, 24), seed=3)
    assert again.fingerprint == patches.fingerprint
    assert torch.equal(again[[7]]["image"], batch["image"][7:8])
    assert ConditionedPatches(data, (16, 24), seed=4).fingerprint != patches.fingerprint
    assert set(ConditionedPatches(data, (16, 24), position=False)[[0]]) == {"image", "annotation"}


def test_every_image_is_as_likely(planes):
    patches = ConditionedPatches(read_annotated(planes), (16, 16))
    numbers = [patches._place("image", n, patches.images["image"])[0] for n in range(900)]
    np.testing.assert_allclose(np.bincount(numbers), 300, atol=60)


def test_a_collapse_is_said_once(planes, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("cascade.gan.collapse._FIRST", 1)
    monkeypatch.setattr(Watch, "variance", property(lambda self: 0.01))
    with caplog.at_level(logging.WARNING):
        run_script(train_gan, "tiny_gan", "--data", planes, "--output_dir", tmp_path, *FEW)
    said = [line for line in caplog.messages if "collapse: samples vary 1.0%" in line]
    assert len(said) == 1
    assert said[0].startswith("step 2: ")


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(planes, tmp_path, monkeypatch):
    forward = DiscriminatorLoss.forward

    def spoilt(self, batch, generator):
        loss = forward(self, batch, generator)
        return loss * float("nan") if self.augmentation._seen == 4 else loss

    monkeypatch.setattr(DiscriminatorLoss, "forward", spoilt)
    with pytest.raises(TrainingDiverged, match=r"the loss is nan at step 4, on samples .* the last checkpoint in"):
        run_script(train_gan, "tiny_gan", "--data", planes, "--output_dir", tmp_path, *FEW)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]
    kept = load_file(tmp_path / "checkpoint-2" / "generator.safetensors")
    assert all(values.isfinite().all() for values in kept.values())
    assert AdaptiveAugmentation().p == 0


def test_a_single_image_is_said(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        read_annotated(write_pairs(tmp_path / "data", [(48, 48)]))
    assert any(
        "one image, which a discriminator soon knows by heart: keep the augmentation" in m for m in caplog.messages
    )


def test_labels_without_a_voxel_size_are_at_the_images(planes, tmp_path):
    labels = write_labels(tmp_path / "labels", [(48, 48)], spacing=())
    assert [one.spacing_um for one in read_annotated(planes, labels).others] == [(0.5, 0.5)]


@pytest.mark.parametrize(
    ("shapes", "spacing", "message"),
    [
        ([(48, 48)], (1.0, 0.6, 0.6), r"voxels of 0.6 × 0.6 µm, and the images' are of 0.5 × 0.5: resample the labels"),
        ([(8, 48, 48)], SPACING, "3 axes, and the images have 2"),
    ],
)
def test_annotations_that_do_not_fit_are_named(shapes, spacing, message, planes, tmp_path):
    with pytest.raises(DataError, match=message):
        read_annotated(planes, write_labels(tmp_path / "labels", shapes, spacing))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--patch_size", "64", "64"], "smaller than a patch of (64, 64): make patch_size smaller"),
        (["--patch_size", "4", "16", "16"], "give as many axes as it has"),
        (["--patch_size", "2", "16"], "patch_size must be at least 4"),
        (["--unet", '{"stem": 2}'], "unet needs block_out_channels"),
        (["--base_model", "nowhere/at all"], "neither a folder nor a model"),
        (["--annotations", "nowhere"], "nowhere: no such folder"),
        (["--alpha", "0"], "alpha must be a number above 0, got 0"),
        (["--beta", "-2"], "beta must be a number above 0, got -2"),
    ],
)
def test_mistakes_are_one_line(options, message, planes, tmp_path, capsys):
    words = ["--config", "configs/tiny_gan.yaml", "--data", str(planes), *options]
    with pytest.raises(SystemExit) as ended:
        main(["train", "gan", *words, "--output_dir", str(tmp_path / "model")])
    assert ended.value.code in (1, 2)
    said = capsys.readouterr().err.strip()
    assert message in said
    assert len(said.splitlines()) == 1
