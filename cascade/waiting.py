"""How OpenMP's threads wait for each other, chosen by whether this process has its cores to itself."""

import logging
import multiprocessing
import os
from collections.abc import MutableMapping

log = logging.getLogger(__name__)

_LOOK_S = 0.1
_SPINS = "1000"  # some microseconds; libgomp's own is thousands of times as long
_KNOWN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def wait_as_others_allow(environment: MutableMapping[str, str] = os.environ, *, too_late: bool = False) -> None:
    """Tell OpenMP how long a thread that waits for another is to spin before it sleeps; to be called before torch is
    imported, which is when OpenMP reads it. too_late: it is there already; where that will cost much, say so.

    A thread that spins on a core which others want keeps off the very thread that it waits for: two threads that shared
    one of two cores took fourteen times as long. Where there are fewer idle cores than threads they sleep at once,
    which alone may cost up to a quarter of the time; else they spin for a very short while, which costs nothing, and
    hardly more than sleeping should another process begin at the same moment, or later. The number of threads stays,
    since results depend on it in their last bits. What users have set holds.
    """
    cores = _cores()
    threads = environment.get("OMP_NUM_THREADS", "")
    wanted = min(int(threads), len(cores)) if threads.isdecimal() else len(cores)
    if too_late:
        import torch

        wanted = min(torch.get_num_threads(), wanted)
    if wanted < 2 or any(name in environment for name in _KNOWN):
        return
    idle = _idle(cores)
    if too_late:
        if idle < 0.5 * wanted and multiprocessing.parent_process() is None:
            log.warning(
                "other processes use the cores, and torch was imported before anything of cascade: its threads will "
                "wait for each other many times as long as need be. Begin with 'from cascade import …', or set "
                "OMP_WAIT_POLICY=passive"
            )
    elif idle < wanted - 0.5:
        environment["OMP_WAIT_POLICY"] = "passive"
    else:
        environment["GOMP_SPINCOUNT"] = _SPINS


def _cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _idle(cores: list[int]) -> float:
    """How many of them nobody uses, over a tenth of a second."""
    import psutil

    busy = psutil.cpu_percent(_LOOK_S, percpu=True)
    return sum(1 - busy[core] / 100 for core in cores if core < len(busy))
