"""accelerate's launcher without its notes on defaults, which no one who runs a command of this package can act on."""

import logging


def main() -> None:
    """Launch the module that is named, with the options after it, as `accelerate launch` does."""
    logging.getLogger("accelerate").setLevel(logging.ERROR)
    from accelerate.commands.launch import main as launch

    launch()


if __name__ == "__main__":
    main()
