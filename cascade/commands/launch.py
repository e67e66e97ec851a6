"""accelerate's launcher without its notes on defaults, which no one who runs a command of this package can act on, and
with as many threads as there are cores."""

import logging
import os
from collections.abc import MutableMapping
from pathlib import Path

_THREADS = "OMP_NUM_THREADS"


def main() -> None:
    """Launch the module that is named, with the options after it, as `accelerate launch` does."""
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    from accelerate.commands.launch import main as launch

    share_threads(os.environ)
    launch()


def share_threads(environment: MutableMapping[str, str]) -> None:
    """Let the processes that are launched share the threads that torch would use; the launcher gives them one each.

    Nothing is changed where the environment says how many.
    """
    if not environment.get(_THREADS):
        import torch

        environment[_THREADS] = str(max(torch.get_num_threads() // _processes(), 1))


def _processes() -> int:
    """How many processes are launched: as accelerate is set up, else one for each GPU."""
    import torch
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file

    if Path(default_config_file).is_file():
        return max(int(load_config_from_file(None).num_processes), 1)
    return max(torch.cuda.device_count(), 1)


if __name__ == "__main__":
    main()
