"""Doctests of docstrings are shown as code: Markdown would take their `>>>` for quotations."""

import re
from typing import Any

import griffe

_DOCTEST = re.compile(r"^( *)>>> .*\n(?:(?!\s*$).*\n?)*", re.M)


class Doctests(griffe.Extension):
    """Put a fence around each doctest."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None and ">>> " in obj.docstring.value:
            obj.docstring.value = _DOCTEST.sub(
                lambda found: f"\n```pycon\n{found[0].rstrip()}\n```\n", obj.docstring.value + "\n"
            )
