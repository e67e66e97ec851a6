"""`python -m cascade`, for torchrun and accelerate: the same as `cascade`."""

import sys

from cascade.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
