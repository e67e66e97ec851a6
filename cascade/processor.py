"""What a processor computes fast in."""

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
