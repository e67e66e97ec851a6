"""`cascade`, and `python -m cascade` for torchrun and accelerate."""

import os
import signal
import sys
from types import FrameType


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"cascade: stopped before anything was begun\n")
    os._exit(128 + number)


def main() -> int:
    """Run the command line; Ctrl-C and SIGTERM end it in one line from here on, its own imports included."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)  # until a command says better what it has kept
    from cascade.commands.cli import main as command_line

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
