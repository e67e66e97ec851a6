"""Trainings of two phases: what the first leaves is taken up by the same training alone; and how one ends."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import pytest
from toy_training import run_script

from cascade.files import BrokenRecord
from cascade.training import train_controlnet, train_ldm
from cascade.training.checkpoints import CheckpointError
from cascade.training.finish import origins

CONFIGS = Path(__file__).parents[1] / "configs"
LATEST = ("--resume_from_checkpoint", "latest")
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def base(tiny_base, tmp_path):
    """A finished foundation that may be changed."""
    return shutil.copytree(tiny_base, tmp_path / "base")


def foundation(folder, crops, *options):
    run_script(train_ldm, "tiny_ldm", "--data", crops, "--output_dir", folder, *options)


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--vae_max_train_steps", "12"], "max_train_steps 10, now it is 12"),
        (["--vae_learning_rate", "1e-3"], "learning_rate 0.0005, now it is 0.001"),
        (["--vae_kl_weight", "0.1"], "kl_weight 0.05, now it is 0.1"),
        (["--vae.latent_channels", "3"], "vae {.*}, now it is {.*'latent_channels': 3}"),
    ],
)
def test_an_autoencoder_of_other_settings_is_not_taken_up(base, tiny_crops, options, words):
    before = files_of(base)
    with pytest.raises(CheckpointError, match=f"vae: was trained with {words}: give the same, or train anew"):
        foundation(base, tiny_crops, *LATEST, *options)
    assert files_of(base) == before


def test_an_autoencoder_of_other_data_or_another_model_is_not_taken_up(base, tiny_base, tiny_crops, tmp_path):
    finished = base / "training_vae" / "finished.json"
    record = json.loads(finished.read_text())
    finished.write_text(json.dumps(record | {"data": "another"}))
    with pytest.raises(CheckpointError, match="vae: was trained on other data"):
        foundation(base, tiny_crops, *LATEST)
    finished.write_text("{")
    with pytest.raises(BrokenRecord, match=r"finished.json: cannot be read .* the autoencoder is trained again"):
        foundation(base, tiny_crops, *LATEST)
    options = ["--data", tiny_crops, "--output_dir", tmp_path / "texture"]
    run_script(train_controlnet, "tiny_controlnet", "--base_model", tiny_base, *options)
    shutil.copytree(tiny_base, tmp_path / "twin")
    with pytest.raises(CheckpointError, match=r"vae: was trained with base_model '.*base.*', now it is '.*twin'"):
        run_script(train_controlnet, "tiny_controlnet", "--base_model", tmp_path / "twin", *options, *LATEST)


def test_an_autoencoder_that_was_not_put_in_place_whole_is_not_taken_up(base, tiny_crops):
    """Killed meanwhile: its config was there, its weights were still another's."""
    weights = (base / "vae" / WEIGHTS).read_bytes()
    (base / "vae" / WEIGHTS).write_bytes(weights[:-8] + bytes(8))
    (base / "training_vae" / "finished.json").unlink()
    foundation(base, tiny_crops, *LATEST)
    assert (base / "vae" / WEIGHTS).read_bytes() == weights
    assert (base / "training_vae" / "finished.json").is_file()


def test_a_checkpoint_that_is_named_is_the_last_phases(base, tiny_base, tiny_crops, tmp_path):
    before = (base / "unet" / WEIGHTS).read_bytes()
    foundation(base, tiny_crops, "--resume_from_checkpoint", base / "training_unet" / "checkpoint-5")
    assert (base / "unet" / WEIGHTS).read_bytes() == before
    options = ["--base_model", tiny_base, "--data", tiny_crops, "--output_dir", tmp_path / "texture"]
    run_script(train_controlnet, "tiny_controlnet", *options)
    before = (tmp_path / "texture" / "controlnet" / WEIGHTS).read_bytes()
    named = ["--resume_from_checkpoint", tmp_path / "texture" / "checkpoint-5"]
    run_script(train_controlnet, "tiny_controlnet", *options, *named)
    assert (tmp_path / "texture" / "controlnet" / WEIGHTS).read_bytes() == before


@pytest.mark.parametrize("options", [(), LATEST, ("--resume_from_checkpoint", "elsewhere/checkpoint-5")])
def test_a_finished_foundation_is_not_trained_anew(base, tiny_crops, options):
    for phase in ("training_vae", "training_unet"):
        for checkpoint in (base / phase).glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    before = files_of(base)
    with pytest.raises(FileExistsError, match="training_unet: holds a training"):
        foundation(base, tiny_crops, *options)
    assert files_of(base) == before


@pytest.mark.parametrize("script", [train_ldm, train_controlnet])
def test_an_upload_that_failed_is_done_by_the_same_command(script, base, tiny_crops, monkeypatch):
    def unreachable(self, repo_id, **_):
        raise ConnectionResetError("no network\nat all")

    def created(self, repo_id, **_):
        return huggingface_hub.RepoUrl(f"https://huggingface.co/me/{repo_id}")

    sent = {}
    options = ["--data", str(tiny_crops), "--push_to_hub", "true", "--report_to", "none"]
    if script is train_ldm:
        options += ["--config", str(CONFIGS / "tiny_ldm.yaml"), *LATEST]
        folder = base
    else:
        options += ["--base_model", str(base), "--max_train_steps", "1", "--decoder_max_train_steps", "0"]
        options += ["--num_inference_steps", "2", "--num_validation_images", "2", "--train_batch_size", "2"]
        folder = base.parent / "texture"
        folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", unreachable)
    with pytest.raises(OSError, match=r"saved here, but not uploaded \(no network\); the same command with --resume_f"):
        script.main([*options, "--output_dir", "."])
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", created)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", lambda self, **given: sent.update(given) or "commit")
    script.main([*options, "--output_dir", ".", *LATEST])
    assert sent["repo_id"] == f"me/{folder.name}"


def test_every_source_is_named_on_the_card(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t000.tif").touch()
    data = [str(tmp_path / "a"), str(tmp_path / "b" / "t000.tif"), str(tmp_path / "b")]
    assert [tuple(one) for one in origins(data, "CC0")] == [("a", "CC0"), ("b", "CC0")]
