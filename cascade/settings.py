"""What a field of settings may hold, by its annotation: said alike in Python, in YAML and on the command line."""

import math
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}


def check_fields(settings: object) -> None:
    """Paths given as text become paths, lists tuples; raises ValueError for a field that holds something else than its
    annotation says. For `__post_init__` of frozen dataclasses."""
    for name, kind in kinds(type(settings)).items():
        object.__setattr__(settings, name, fitting(name, getattr(settings, name), kind))


def at_least(settings: object, **least: int) -> None:
    """Raises ValueError for a named field, unless it is None, that is smaller than so much."""
    for name, bound in least.items():
        value = getattr(settings, name)
        if value is not None and value < bound:
            raise ValueError(f"{name} must be a whole number from {bound}, got {value}")


def check_spacing(name: str, spacing_um: tuple[float, ...]) -> None:
    """Raises ValueError for voxel sizes, in µm, that are neither none, nor two or three lengths above 0."""
    if len(spacing_um) not in (0, 2, 3) or not all(0 < length < math.inf for length in spacing_um):
        raise ValueError(f"{name} must be y x or z y x, lengths above 0 in µm, got {_shown(spacing_um)}")


def kinds(settings: type) -> dict[str, Any]:
    """The annotations of a dataclass's fields, by name."""
    hints = get_type_hints(settings)
    return {field.name: hints[field.name] for field in fields(settings)}  # type: ignore[arg-type]


def wanted(kind: Any) -> str:
    """What a value of an annotation is, in words.

    >>> wanted(int | None), wanted(tuple[float, ...]), wanted(Literal["gt", "st"])
    ('a whole number', 'a number, or several', 'one of gt, st')
    """
    kind = without_none(kind)
    if get_origin(kind) is tuple:
        return f"{wanted(get_args(kind)[0])}, or several"
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    return _KINDS[kind]


def fitting(name: str, value: object, kind: Any) -> object:
    """The value as a field of this annotation holds it. Raises ValueError, which calls it `name`."""
    whole = without_none(kind)
    if value is None and whole is not kind:
        return None
    if get_origin(whole) is tuple and isinstance(value, (list, tuple)):
        return tuple(fitting(name, one, get_args(whole)[0]) for one in value)
    if whole is Path and isinstance(value, (str, Path)) and str(value):
        return Path(value)
    if whole is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    choices = get_args(whole) if get_origin(whole) is Literal else ()
    if value in choices or (whole in (bool, int, str) and type(value) is whole):
        return value
    quoted = "; in a YAML file, put it in quotes" if whole is str and isinstance(value, (int, float)) else ""
    raise ValueError(f"{name} must be {wanted(kind)}, got {_shown(value)}{quoted}")


def read(name: str, text: object, kind: Any) -> object:
    """The same of text from the command line, or of what a YAML file says.

    >>> read("canvas_size", ["64", "64"], tuple[int, ...]), read("sequences", ["01"], tuple[str, ...])
    ((64, 64), ('01',))
    """
    whole = without_none(kind)
    if get_origin(whole) is tuple:
        parts = text if isinstance(text, (list, tuple)) else [text]
        return fitting(name, [_read_one(part, get_args(whole)[0]) for part in parts], kind)
    return fitting(name, _read_one(text, whole), kind)


def _read_one(text: object, kind: Any) -> object:
    """Numbers and switches out of text; anything else as it is, for `fitting` to judge."""
    if not isinstance(text, str) or kind not in (bool, int, float):
        return text
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        number: float = kind(text)
    except ValueError:
        return text
    return number


def without_none(kind: Any) -> Any:
    """X of `X | None`."""
    if get_origin(kind) in (Union, UnionType):
        return next(one for one in get_args(kind) if one is not NoneType)
    return kind


def _shown(value: object) -> str:
    """As it was given: several with blanks between."""
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
