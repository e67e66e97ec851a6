"""Loading a cascade on the best device there is."""

import logging
from pathlib import Path
from typing import Literal

import torch
from diffusers.utils.logging import disable_progress_bar

from cascade.pipelines.cascade import CascadePipeline
from cascade.processor import best_device, fast_bfloat16

log = logging.getLogger(__name__)


def load(
    folder: str | Path,
    device: str | None = None,
    dtype: str = "float32",
    *,
    compile: bool = False,
    few_steps: bool = False,
) -> CascadePipeline:
    """A cascade on the best device there is, whose stages leave the progress bar to the whole.

    compile: the texture networks by torch.compile, which takes a minute or two and pays on large data sets.
    """
    disable_progress_bar()  # of loading, which takes no time
    device = check_device(device)
    if dtype == "bfloat16" and not fast_bfloat16(device):
        log.warning(
            "%s emulates bfloat16, several times slower than float32: `dtype` auto chooses what is fast", device
        )
    pipeline = CascadePipeline.from_pretrained(folder, dtype=getattr(torch, dtype), few_steps=few_steps).to(device)
    for stage in pipeline.stages:
        stage.set_progress_bar_config(disable=True)
    if compile:
        for network in (pipeline.texture.unet, pipeline.texture.controlnet):
            network.compile()
    return pipeline


def check_device(device: str | None) -> str:
    """The device, or the best one for None. Raises ValueError for one that is not there."""
    if device is None:
        return best_device()
    there = ["cpu"] + (["mps"] if torch.backends.mps.is_available() else [])
    there += ["cuda", *(f"cuda:{n}" for n in range(torch.cuda.device_count()))] if torch.cuda.is_available() else []
    if device not in there:
        why = "" if len(there) > 1 else "; this installation of torch sees no GPU, see cascade doctor"
        raise ValueError(f"device must be one of {', '.join(there)}, got {device}{why}")
    return device


def cells_together(device: torch.device | str) -> int:
    """How many cells of a bank are made at once: a GPU makes 128 at nearly twice the rate of 32, a CPU 32 at any rate,
    and loses less where it is interrupted."""
    return 128 if torch.device(device).type == "cuda" else 32


def fast_dtype(device: str | None) -> Literal["bfloat16", "float32"]:
    """What a device, by default the best one, computes networks fastest in without a loss that is seen."""
    return "bfloat16" if fast_bfloat16(check_device(device)) else "float32"
