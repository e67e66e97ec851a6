"""Stable Diffusion 1.5 at full size, with random weights: time and memory of loading, finetuning and sampling.

    python benchmarks/full_size.py [--steps N] [--folder DIR]

Builds a model of exactly SD-1.5's configuration (1.07 billion parameters with its text encoder), saves it as the Hub
has it, finetunes it for one step with `train_controlnet` on made-up crops of 512 pixels, loads the result and draws
slices. Needs 14 GB of disk and 16 GB of memory. Prints one JSON object on its last line.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
import torch
from common import machine
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from scipy import ndimage
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from cascade.data.prepare import prepare
from cascade.data.settings import PrepareSettings
from cascade.pipelines.texture import TexturePipeline

# https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5: */config.json
UNET = dict(
    sample_size=64,
    cross_attention_dim=768,
    attention_head_dim=8,
    block_out_channels=(320, 640, 1280, 1280),
    layers_per_block=2,
)
VAE = dict(
    sample_size=512,
    block_out_channels=(128, 256, 512, 512),
    layers_per_block=2,
    latent_channels=4,
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
)
TEXT = dict(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4, help="DDIM steps measured; 20 are projected from them")
    parser.add_argument("--folder", type=Path, help="work here; default a temporary folder")
    parser.add_argument("--part", choices=("build", "sample"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        {"build": build, "sample": sample}[options.part](options.folder, options.steps)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = options.folder or Path(place)
        report = {"build": _run([__file__, "--part", "build", "--folder", str(folder)])}
        train = ["-m", "accelerate.commands.launch", "--num_processes", "1", "--mixed_precision", "no"]
        train += ["-m", "cascade.training.train_controlnet", "--base_model", str(folder / "base")]
        train += ["--data", str(folder / "crops"), "--output_dir", str(folder / "texture"), "--max_train_steps", "1"]
        train += ["--train_batch_size", "1", "--gradient_checkpointing", "true", "--optimizer", "adafactor"]
        train += ["--use_ema", "false", "--num_validation_images", "1", "--num_inference_steps", "1"]
        train += ["--decoder_max_train_steps", "1", "--decoder_train_batch_size", "1"]
        report["finetune"] = _run([*train, "--report_to", "none"])
        for key, place in (
            ("seconds_of_the_step", "texture"),
            ("seconds_of_a_decoder_step", "texture/training_decoder"),
        ):
            report["finetune"][key] = json.loads((folder / place / "log.jsonl").read_text())["seconds_per_step"]
        arguments = ["--part", "sample", "--folder", str(folder), "--steps", str(options.steps)]
        report["sample"] = _run([__file__, *arguments])
    report["machine"] = machine()
    print(json.dumps(report))


def _run(arguments: list[str]) -> dict:
    """A part in a process of its own: seconds, peak memory, and what it printed."""
    start = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    found = {"seconds": round(time.perf_counter() - start, 1)}
    if peak > before:  # of the largest child so far
        found["peak_memory_gb"] = round(peak / 2**20, 2)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return found | (json.loads(lines[-1]) if lines else {})


def build(folder: Path, steps: int) -> None:
    """The base model and crops of 512 pixels."""
    torch.manual_seed(0)
    base = folder / "base"
    unet, vae = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE)
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1}  # all that an empty prompt is made of
    base.mkdir(parents=True, exist_ok=True)
    (base / "vocab.json").write_text(json.dumps(words))
    (base / "merges.txt").write_text("#version: 0.2\n")
    text = CLIPTextModel(CLIPTextConfig(**TEXT))
    parameters = {
        name: sum(p.numel() for p in m.parameters()) for name, m in dict(unet=unet, vae=vae, text=text).items()
    }
    unet.save_pretrained(base / "unet")
    vae.save_pretrained(base / "vae")
    text.save_pretrained(base / "text_encoder")
    CLIPTokenizer(str(base / "vocab.json"), str(base / "merges.txt")).save_pretrained(base / "tokenizer")
    DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False).save_pretrained(
        base / "scheduler"
    )
    rng = np.random.default_rng(0)
    for place in ("01", "01_GT/SEG"):
        (folder / "images" / place).mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:640, :640]
    for n in range(2):
        labels = ((y - 320) ** 2 / 170**2 + (x - 320) ** 2 / 130**2 <= 1).astype(np.uint16)
        image = (
            100
            + ndimage.gaussian_filter(rng.normal(500, 2000, labels.shape), 6) * labels
            + rng.normal(0, 5, labels.shape)
        )
        tifffile.imwrite(folder / "images" / "01" / f"t{n:03d}.tif", np.clip(image, 0, 65535).astype(np.uint16))
        tifffile.imwrite(folder / "images" / "01_GT" / "SEG" / f"man_seg{n:03d}.tif", labels)
    prepare(PrepareSettings(folder / "images", output_dir=folder / "crops", crop_size=512, spacing_um=[0.1, 0.1]))
    print(json.dumps({"parameters": parameters}))


def sample(folder: Path, steps: int) -> None:
    """Load the finetuned stage and draw one slice."""
    start = time.perf_counter()
    pipeline = TexturePipeline.from_pretrained(folder / "texture")
    loading = time.perf_counter() - start
    y, x = np.mgrid[:512, :512]
    mask = (y - 256) ** 2 / 170**2 + (x - 256) ** 2 / 130**2 <= 1
    seconds = {}
    for count in (1, 1 + steps):
        start = time.perf_counter()
        images = pipeline(mask[None], np.array([0.5]), num_inference_steps=count).images
        seconds[count] = time.perf_counter() - start
    step = (seconds[1 + steps] - seconds[1]) / steps
    names = {"down_blocks.0.resnets.0.conv1.weight", "mid_block.attentions.0.proj_in.weight", "conv_out.weight"}
    assert images.shape == (1, 512, 512)
    assert names <= set(pipeline.unet.state_dict())
    found = {"loading_s": loading, "seconds_per_step": step, "decoding_s": seconds[1] - step}
    found["seconds_per_slice_at_20_steps_projected"] = seconds[1] + 19 * step
    print(json.dumps({key: round(value, 1) for key, value in found.items()}))


if __name__ == "__main__":
    main()
