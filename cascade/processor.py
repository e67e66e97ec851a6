"""What there is to compute with, and what it computes fast in."""

import os

import torch


def fast_bfloat16(device: torch.device | str) -> bool:
    """Whether a device has instructions for bfloat16; where it is emulated it is several times slower than float32.

    CPUs have them as AVX-512 BF16, AMX or Arm's BF16, GPUs since NVIDIA's Ampere.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    features = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return any(there for name, there in features.items() if name.endswith("bf16"))


def best_device() -> str:
    """This process's GPU, which it shares where there are more processes than GPUs, or the CPU."""
    if not torch.cuda.is_available():
        return "cpu"
    return f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"
