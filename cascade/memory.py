"""How many items a network takes at once, as the free memory allows, and memory that is kept for the next call."""

import ctypes
import platform

import psutil
import torch

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of malloc.h


def micro_batch(bytes_each: float, device: torch.device | str, on_cpu: int, on_gpu: int) -> int:
    """The largest power of two of items of `bytes_each` that fills at most half of the free memory, at least 1.

    on_cpu, on_gpu: no more than so many: beyond that nothing gets faster. Where memory is not short the answer is
    this bound, and so the same from run to run.
    """
    device = torch.device(device)
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # free again for this process
        free, limit = torch.cuda.mem_get_info(device)[0] + kept, on_gpu
    else:
        free, limit = psutil.virtual_memory().available, on_cpu
    fitting = max(int(0.5 * free / max(bytes_each, 1)), 1)
    return min(1 << (fitting.bit_length() - 1), limit)


def keep_freed() -> None:
    """Keep freed memory, up to 2 GB, for what this process asks for next, as long as it runs; of glibc only.

    Else each large tensor is asked of the system, which fills it with zeros, page by page, and given back a moment
    later: more than a third of the time of painting a large scene.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_MAX, 0)
        libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
