"""`cascade`, and `python -m cascade` for torchrun and accelerate."""

import sys

from cascade.entry import end_in_one_line
from cascade.waiting import wait_as_others_allow


def main() -> int:
    """Run the command line."""
    end_in_one_line()  # until a command says better what it has kept
    if not {"-h", "--help"}.intersection(sys.argv) and len(sys.argv) > 1:
        wait_as_others_allow()  # before torch is imported
    from cascade.commands.cli import main as command_line

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
