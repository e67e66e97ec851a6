"""How many items a network takes at once: as many as the free memory allows, within what is worth while."""

import psutil
import torch


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
