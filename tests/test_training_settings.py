import dataclasses
import subprocess
import sys

import pytest
import torch
from toy_training import settings

from cascade.training import (
    train_controlnet,
    train_distilled_sketch,
    train_gan,
    train_ldm,
    train_mask_ddpm,
    train_multiview,
    train_sketch_ddpm,
)
from cascade.training.script import parse, run
from cascade.training.start import claimed, make_accelerator


@pytest.mark.parametrize("script", [train_sketch_ddpm, train_gan, train_distilled_sketch])
def test_required_settings_are_enough(script):
    given = ["--data", "images", "--output_dir", "out"]
    given += ["--base_model", "sketch2d"] if script is train_distilled_sketch else []
    made = parse(script.Settings, "", given)
    usual = next(one.default for one in dataclasses.fields(script.Settings) if one.name == "patch_size")
    assert made.patch_size == usual
    assert parse(script.Settings, "", [*given, "--patch_size", "64", "96"]).patch_size == (64, 96)


def test_switches_need_no_true():
    given = ["--data", "crops", "--output_dir", "out", "--base_model", "nuclei2d"]
    given += ["--push_to_hub", "--from_scratch", "--use_ema", "false"]
    made = parse(train_controlnet.Settings, "", given)
    assert (made.push_to_hub, made.from_scratch, made.use_ema, made.gradient_checkpointing) == (
        True,
        True,
        False,
        False,
    )
    assert parse(train_controlnet.Settings, "", [*given, "--gradient_checkpointing"]).gradient_checkpointing


def test_missing_and_unknown_settings_are_named_in_one_line(tiny_crops, tmp_path, capsys):
    crops, output = str(tiny_crops), str(tmp_path)
    for arguments, words in (
        (["--data", crops, "--output_dir", output], "--base_model"),
        (["--base_model", "nuclei2d", "--output_dir", output], "data"),
        (["--base_model", "b", "--data", "c", "--output_dir", "d", "--learning_rat", "1"], "learning_rat"),
        (["--base_model", crops, "--data", crops, "--output_dir", output], "holds crops of"),
    ):
        with pytest.raises(SystemExit) as error:
            run(train_controlnet.main, arguments)
        said = capsys.readouterr().err + str(error.value)
        assert words in said
        assert said.strip().count("\n") < 2


def refused(capsys, script, given: list[str]) -> str:
    """The one line that a script ends with."""
    with pytest.raises(SystemExit) as stopped:
        run(script.main, given)
    assert stopped.value.code != 0
    (line,) = [
        *capsys.readouterr().err.splitlines(),
        *([stopped.value.code] if isinstance(stopped.value.code, str) else []),
    ]
    return line


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("max_train_steps", (0, -1)),
        ("train_batch_size", (0, -4)),
        ("gradient_accumulation_steps", (0,)),
        ("checkpointing_steps", (0,)),
        ("checkpoints_total_limit", (0,)),
        ("logging_steps", (0,)),
        ("preview_steps", (0, -1)),
        ("lr_warmup_steps", (-1,)),
        ("seed", (-1,)),
        ("dataloader_num_workers", (-1,)),
        ("weight_decay", (-0.1, float("nan"))),
        ("learning_rate", (0, -1e-4, float("nan"), float("inf"))),
        ("max_grad_norm", (0, float("nan"))),
        ("ema_decay", (1, 1.5, -0.1, float("nan"))),
        ("mixed_precision", ("fp8", "half")),
        ("lr_scheduler", ("cosin", "piecewise_constant")),
        ("optimizer", ("sgd",)),
        ("report_to", ("tensorbord",)),
        ("output_dir", ("",)),
    ],
)
def test_settings_that_cannot_be_are_named_before_anything_is_made(tmp_path, capsys, name, values):
    for value in values:
        with pytest.raises(ValueError, match=f"^{name} "):
            settings(tmp_path / "run", **{name: value})
        given = f"--{name}=.{value}" if str(value) in ("nan", "inf") else f"--{name}={value}"  # as YAML writes it
        assert name in refused(capsys, train_multiview, ["--output_dir", str(tmp_path / "run"), given])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "value"), [("max_train_steps", "many"), ("seed", 1.5), ("use_ema", "no")])
def test_values_of_another_kind_are_refused_in_python_too(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"^{name} must be "):
        settings(tmp_path, **{name: value})


@pytest.mark.parametrize(
    ("script", "name", "value"),
    [
        (train_mask_ddpm, "prediction_type", "velocity"),
        (train_mask_ddpm, "representation", "mask"),
        (train_mask_ddpm, "truncation_px", 0),
        (train_mask_ddpm, "sample_size", 0),
        (train_mask_ddpm, "sample_size", 18),  # its three levels halve it twice
        (train_mask_ddpm, "unet", "{layers_per_block: 1}"),
        (train_ldm, "prediction_type", "velocity"),
        (train_ldm, "vae_max_train_steps", 0),
        (train_ldm, "vae_train_batch_size", 0),
        (train_ldm, "vae_learning_rate", 0),
        (train_controlnet, "trainable_unet", "encoder"),
        (train_controlnet, "decoder_max_train_steps", -1),
        (train_controlnet, "decoder_learning_rate", ".nan"),
        (train_controlnet, "num_validation_images", 0),
        (train_multiview, "views", "sphere"),
        (train_multiview, "num_views", 0),
        (train_multiview, "drop_condition", 1),
        (train_multiview, "prediction_type", "velocity"),
    ],
)
def test_each_stage_names_its_own(tmp_path, capsys, script, name, value):
    given = ["--output_dir", str(tmp_path / "run"), f"--{name}={value}"]
    given += [] if script is train_multiview else ["--data", "crops"]
    given += ["--base_model", "nuclei2d"] if script is train_controlnet else []
    assert name in refused(capsys, script, given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("script", [train_mask_ddpm, train_ldm, train_controlnet])
def test_what_is_read_is_not_written_over(tiny_crops, tmp_path, monkeypatch, capsys, script):
    monkeypatch.chdir(tiny_crops.parent)
    before = sorted(tiny_crops.rglob("*"))
    given = ["--data", str(tiny_crops), "--output_dir", f"./{tiny_crops.name}/", "--base_model", "nuclei2d"]
    said = refused(capsys, script, given[:4] if script is train_ldm else given)
    assert "is where the images are read from; name another" in said
    if script is not train_ldm:
        (tmp_path / "base").mkdir()
        given = ["--data", "crops", "--output_dir", str(tmp_path / "base"), "--base_model", f"{tmp_path}/base/."]
        assert "is the base_model itself" in refused(capsys, script, given)
    assert sorted(tiny_crops.rglob("*")) == before


@pytest.mark.parametrize("script", [train_sketch_ddpm, train_gan, train_distilled_sketch])
def test_previews_among_the_images_are_refused(tmp_path, capsys, script):
    """They would be read as images by the next training."""
    (tmp_path / "n30" / "images").mkdir(parents=True)
    given = ["--data", str(tmp_path / "n30"), "--output_dir", str(tmp_path / "n30" / "images")]
    given += ["--base_model", "sketch2d"] if script is train_distilled_sketch else []
    assert "is where the images are read from" in refused(capsys, script, given)
    assert not list((tmp_path / "n30" / "images").iterdir())


def test_yaml_says_what_flags_say(tmp_path):
    config = tmp_path / "a.yaml"
    config.write_text("data: images\npatch_size: 32\nmixed_precision: no\nsequences: [a, b]\n")
    given = ["--config", str(config), "--output_dir", "out"]
    made = parse(train_sketch_ddpm.Settings, "", given)
    assert (made.data, made.patch_size, made.mixed_precision) == (("images",), (32,), "no")
    assert made.sequences == ("a", "b")
    assert parse(train_sketch_ddpm.Settings, "", [*given, "--data", "c", "d"]).data == ("c", "d")


@pytest.mark.parametrize(
    ("script", "name", "known"),
    [
        (train_mask_ddpm, "unet", "layers_per_block"),
        (train_ldm, "unet", "layers_per_block"),
        (train_ldm, "vae", "latent_channels"),
        (train_multiview, "network", "volume_size"),
        (train_multiview, "law", "roughness"),
        (train_sketch_ddpm, "unet", "stem"),
        (train_gan, "unet", "stem"),
        (train_gan, "discriminator", "detail_gain"),
    ],
)
def test_arguments_that_a_network_does_not_know_are_named(tmp_path, capsys, script, name, known):
    given = ["--output_dir", str(tmp_path / "run"), f"--{name}.foo", "3"]
    said = refused(capsys, script, given if script is train_multiview else [*given, "--data", "images"])
    assert f"{name} has no foo; it has " in said
    assert known in said


@pytest.mark.parametrize(("told", "precision"), [(None, "no"), ("no", "no"), ("bf16", "bf16")])
def test_the_precision_is_the_launchers_unless_given(tmp_path, monkeypatch, told, precision):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if told:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", told)
    assert parse(train_multiview.Settings, "", ["--output_dir", "out"]).mixed_precision == precision
    monkeypatch.setattr("accelerate.state.AcceleratorState._shared_state", {})  # as in a new process
    assert make_accelerator(settings(tmp_path)).mixed_precision == precision
    assert (
        parse(train_multiview.Settings, "", ["--output_dir", "out", "--mixed_precision", "no"]).mixed_precision == "no"
    )


def test_a_precision_of_the_launcher_that_cannot_be_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp8")
    with pytest.raises(ValueError, match="mixed_precision must be one of no, fp16, bf16, got fp8"):
        settings(tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="it computes in fp16")
def test_half_precision_without_a_gpu_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("accelerate.state.AcceleratorState._shared_state", {})
    with pytest.raises(ValueError, match="fp16 needs a GPU, and there is none: give bf16 or no"):
        make_accelerator(settings(tmp_path, mixed_precision="fp16"))


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE"])
@pytest.mark.parametrize("value", ["abc", "", "-1", "1.5"])
def test_the_launchers_numbers_are_numbers(tmp_path, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{name} must be a number"):
        make_accelerator(settings(tmp_path))
    with pytest.raises(ValueError, match=f"{name} must be a number"), claimed(settings(tmp_path)):
        pass


def test_a_tracker_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="report_to wandb needs the package: pip install wandb"):
        make_accelerator(settings(tmp_path, report_to="wandb"))


def test_settings_stay_as_they_were_checked(tmp_path):
    made = settings(tmp_path)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.max_train_steps = 0
    with pytest.raises(ValueError, match="max_train_steps"):
        dataclasses.replace(made, max_train_steps=0)


def test_settings_need_no_torch():
    code = "import sys; import cascade.training.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
