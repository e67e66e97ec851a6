"""Fields of the dock widget: under headings, and read as numbers."""

from typing import Any

from magicgui.widgets import Container, Label


def part(title: str, fields: list[Any]) -> list[Any]:
    """Some fields below a heading."""
    below = Container(widgets=fields)
    below.margins = (0, 0, 0, 0)
    return [Label(value=f"<b>{title}</b>"), below]


def numbers(name: str, text: str, kind: type) -> Any:
    """Numbers of a field, with blanks between. Raises ValueError for anything else.

    >>> numbers("size", "96 112", int)
    (96, 112)
    """
    try:
        return tuple(kind(word) for word in text.replace(",", " ").replace("×", " ").split())
    except ValueError as error:
        raise ValueError(f"{name} must be numbers with blanks between, such as 256 256; got {text}") from error
