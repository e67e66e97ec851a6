"""Loading a cascade on the best device there is."""

import os

import torch
from diffusers.utils.logging import disable_progress_bar

from cascade.pipelines.cascade import CascadePipeline


def load(folder, device: str | None = None, dtype: str = "float32", compile: bool = False) -> CascadePipeline:
    """A cascade on the best device there is, whose stages leave the progress bar to the whole.

    compile: the texture networks by torch.compile, which takes a minute or two and pays on large data sets.
    """
    disable_progress_bar()  # of loading, which takes no time
    device = device or best_device()
    if torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"--device {device}: this installation of torch sees no GPU; leave it out, or see cascade doctor"
        )
    pipeline = CascadePipeline.from_pretrained(folder, dtype=getattr(torch, dtype)).to(device)
    for stage in pipeline.stages:
        stage.set_progress_bar_config(disable=True)
    if compile:
        for network in (pipeline.texture.unet, pipeline.texture.controlnet):
            network.compile()
    return pipeline


def cells_together(device: torch.device | str) -> int:
    """How many cells of a bank are made at once: a GPU makes 128 at nearly twice the rate of 32, a CPU 32 at any rate,
    and loses less where it is interrupted."""
    return 128 if torch.device(device).type == "cuda" else 32


def best_device() -> str:
    """This process's GPU, which it shares where there are more processes than GPUs, or the CPU."""
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"
