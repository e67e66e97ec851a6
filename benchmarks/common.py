"""Where the benchmarks find real data, and what they ran on."""

import os
import platform
from pathlib import Path

import torch


def data_folder() -> Path:
    """The folder with BBBC039 and BBBC050 that CASCADE_DATA names."""
    return Path(os.environ.get("CASCADE_DATA", Path(__file__).parents[2] / "shared" / "data"))


def machine() -> str:
    """Processor, threads, and GPU if there is one."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads{gpu}"
