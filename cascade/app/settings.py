"""What is asked of `cascade app`, and what its page takes at most."""

from dataclasses import dataclass

from cascade.settings import at_least, check_fields

MAX_FILE_MB = 50
"""Of one uploaded file."""
MAX_FILES = 60
"""Uploaded at once."""
MAX_FILE_VOXELS = 16_000_000
"""Of one uploaded image, before it is decoded."""
MAX_PAINTED = 1_500_000
"""Pixels of a painted image."""
MAX_CELLS = 1000
"""Of a painted image."""
MAX_WAITING = 30
"""Requests that may wait for their turn."""


@dataclass(frozen=True, kw_only=True)
class AppSettings:
    """Where the page is served, and what may paint on it.

    >>> AppSettings(port=99999)
    Traceback (most recent call last):
    ValueError: port must be a whole number from 0 to 65535, got 99999
    """

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 lets everyone in who reaches this machine."""
    port: int = 7860
    """Port to listen on; 0 takes a free one."""
    model: str | None = None
    """A model of yours that paints planes, folder or Hub id, beside the embedded ones."""

    def __post_init__(self) -> None:
        check_fields(self)
        at_least(self, port=0)
        if self.port > 65535:
            raise ValueError(f"port must be a whole number from 0 to 65535, got {self.port}")


def whole(name: str, value: object, least: int, most: int) -> int:
    """A whole number from a field of the page; raises ValueError for anything else, and beyond these bounds.

    >>> whole("seed", 3.0, 0, 9)
    3
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool) or value != value or not least <= value <= most:
        raise ValueError(f"{name} must be a whole number from {least} to {most}, got {value}")
    if int(value) != value:
        raise ValueError(f"{name} must be a whole number from {least} to {most}, got {value:g}")
    return int(value)


def lengths(name: str, text: str) -> tuple[float, ...]:
    """Lengths in µm from a field of the page, none where it is empty; raises ValueError for text that is no numbers.

    >>> lengths("voxel size", "1.75 0.8 0.8")
    (1.75, 0.8, 0.8)
    """
    try:
        return tuple(float(word) for word in text.replace(",", " ").split())
    except ValueError as error:
        raise ValueError(
            f"{name} must be numbers in µm with blanks between, such as 1.75 0.8 0.8; got {text}"
        ) from error
