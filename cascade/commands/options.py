"""From the words after a command, or a YAML file, to its settings: flags are the fields, help their docstrings."""

import ast
import difflib
import inspect
import re
from argparse import SUPPRESS, ArgumentError, RawDescriptionHelpFormatter
from collections.abc import Iterable
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from textwrap import dedent
from typing import Any, Literal, get_args, get_origin

from jsonargparse import ArgumentParser

from cascade.entry import UsageError
from cascade.settings import kinds, read, without_none

_SHOWN = {int: "N", float: "X", str: "TEXT", Path: "PATH"}
_HELP = ("-h", "--help")
_NEAR = 0.7  # how alike two flags have to be for one to be meant by the other


@dataclass(frozen=True)
class Flags:
    """The flags of one command: the fields of its settings, one or several dataclasses.

    A name that several of them have is one flag, explained by the first, and given to all. Fields that Python takes by
    position are given by position here, too.
    """

    name: str
    about: str
    settings: tuple[type, ...]

    def parse(self, words: list[str]) -> list[Any] | None:
        """The settings, one object of each class, or None where help was asked for and printed.

        Flags win over `--config FILE`. Raises `UsageError` for names that are none and values that cannot be.
        """
        given = self.given(words)
        if given is None:
            return None
        try:
            return [cls(**values) for cls, values in zip(self.settings, given, strict=True)]
        except ValueError as error:
            raise UsageError(self.in_flags(str(error))) from error

    def given(self, words: list[str]) -> list[dict[str, Any]] | None:
        """The values that were given for each class of settings, by name."""
        if any(word in _HELP for word in words):
            print(self._parser(explained=True).format_help())
            return None
        self._check_names(words)
        config, ordered = _config_first(self._switched_on(words))
        try:
            given = vars(self._parser().parse_args(ordered))
        except ArgumentError as error:
            raise UsageError(self._in_short(error, config)) from error
        given = {name: value for name, value in given.items() if value is not None}
        missing = [self.flag(f) for f in self.fields if f.default is MISSING and f.name not in given]
        if missing:
            raise UsageError(f"{', '.join(missing)}: to be given; cascade {self.name} --help says more")
        try:
            return [_read_all(cls, given) for cls in self.settings]
        except ValueError as error:
            raise UsageError(self.in_flags(str(error))) from error

    @property
    def fields(self) -> "list[Field[Any]]":
        found: dict[str, Field[Any]] = {}
        for cls in self.settings:
            found |= {field.name: field for field in fields(cls) if field.name not in found}
        return list(found.values())

    def flag(self, field: "Field[Any]") -> str:
        """As it is given on the command line."""
        return f"--{field.name}" if field.kw_only else field.name.upper()

    def _to_be_given(self) -> list[str]:
        required = [field for field in self.fields if field.default is MISSING]
        return [self.flag(field) + (" …" if field.kw_only else "") for field in required]

    def in_flags(self, message: str) -> str:
        """A message of the library, its names of settings as flags: a first word, and what is in backticks.

        >>> from cascade.data.settings import PrepareSettings
        >>> Flags("prepare", "", (PrepareSettings,)).in_flags("seed must be 1 with `sparse`")
        '--seed must be 1 with --sparse'
        """
        names = {field.name: self.flag(field) for field in self.fields}
        message = re.sub(r"`(\w+)`", lambda found: names.get(found[1], found[0]), message)
        return re.sub(r"^(\w+)(?= )", lambda found: names.get(found[1], found[0]), message)

    def _parser(self, explained: bool = False) -> ArgumentParser:
        parser = ArgumentParser(
            prog=f"cascade {self.name}",
            usage=" ".join([f"cascade {self.name}", *self._to_be_given(), "[--config FILE] [other flags]"]),
            description=self.about,
            formatter_class=RawDescriptionHelpFormatter,
            allow_abbrev=False,
            exit_on_error=False,
            print_config=None,
        )
        parser.add_argument(
            "--config", action="config", metavar="FILE", help="YAML with any of the flags, which win over it"
        )
        added: set[str] = set()
        for cls in self.settings:
            texts = _docstrings(cls) if explained else {}
            for field in (one for one in fields(cls) if one.name not in added):
                self._add(parser, field, kinds(cls)[field.name], texts.get(field.name, ""))
            added |= {field.name for field in fields(cls)}
        return parser

    def _add(self, parser: ArgumentParser, field: "Field[Any]", kind: Any, text: str) -> None:
        whole = without_none(kind)
        options: dict[str, Any] = {}  # of argparse
        if get_origin(whole) is tuple:
            whole, options["nargs"] = get_args(whole)[0], "+"
        if not field.kw_only:
            options |= {"nargs": "?", "metavar": field.name.upper()}
        elif whole is bool:
            options["metavar"] = ""
        elif get_origin(whole) is Literal:
            options["metavar"] = "NAME" if "nargs" in options else f"{{{','.join(get_args(whole))}}}"
        else:
            options["metavar"] = _SHOWN[whole]
        name = self.flag(field) if field.kw_only else field.name
        parser.add_argument(name, help=_explained(field, text), default=SUPPRESS, **options)

    def _switched_on(self, words: list[str]) -> list[str]:
        """`--meshes` alone means `--meshes=true`; `--meshes false` overrules a file."""
        switches = {f"--{name}" for cls in self.settings for name, kind in kinds(cls).items() if kind is bool}
        found: list[str] = []
        for word in words:
            if found and found[-1] in switches and word.lower() in ("true", "false"):
                found[-1] += f"={word}"
            else:
                found.append(word)
        return [f"{word}=true" if word in switches else word for word in found]

    def _check_names(self, words: list[str]) -> None:
        for word in words:
            if word.startswith("--") and word.split("=")[0] not in ("--config", "--", *map(self.flag, self.fields)):
                raise UsageError(self._unknown(word.split("=")[0]))

    def _unknown(self, flag: str) -> str:
        known = [self.flag(field) for field in self.fields if field.kw_only] + ["--config"]
        near = [name for name in known if name.startswith(flag)] or difflib.get_close_matches(flag, known, 1, _NEAR)
        hint = f"did you mean {near[0]}?" if near else f"cascade {self.name} --help lists all"
        return f"there is no {flag}; {hint}"

    def _in_short(self, error: ArgumentError, config: str) -> str:
        """What jsonargparse says, in one line."""
        text = " ".join(str(error).split())
        if found := re.search(r"Option '(\S+)' is not accepted", text):
            return f"{config}: {self._unknown(f'--{found[1]}')}"
        if found := re.search(r"argument (--\S+): expected", text):
            return f"{found[1]} needs a value"
        if found := re.search(r"unrecognized arguments: (.*)", text):
            return f"{found[1]}: one word too many; a flag that takes several ends where the next flag begins"
        if "does not exist" in text:
            return f"{config}: there is no such file"
        if "Unexpected config" in text:
            return f"{config} has no settings: write one 'option: value' a line"
        return f"{config}: {text}" if config else text


def _read_all(settings: type, given: dict[str, object]) -> dict[str, Any]:
    return {name: read(name, given[name], kind) for name, kind in kinds(settings).items() if name in given}


def _config_first(words: list[str]) -> tuple[str, list[str]]:
    """The file of settings, "" for none, and the words with it in front: flags given before it win over it, too."""
    split = [part for word in words for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    if split.count("--config") > 1:
        raise UsageError("more than one --config: put all settings into one file")
    if "--config" not in split[:-1]:
        return "", words
    at = split.index("--config")
    return split[at + 1], [f"--config={split[at + 1]}", *split[:at], *split[at + 2 :]]


def _explained(field: "Field[Any]", text: str) -> str:
    text = text.rstrip(".")
    if field.default is MISSING:
        text += " (required)" if field.kw_only else ""
    elif field.default not in (None, ()) and field.default is not False and "default" not in text:
        values: Iterable[object] = field.default if isinstance(field.default, tuple) else [field.default]
        text += f" (default {' '.join(map(str, values))})"
    return text.strip().replace("%", "%%")


def _docstrings(settings: type) -> dict[str, str]:
    """The strings below the fields of a dataclass, which Python itself does not keep."""
    body = ast.parse(dedent(inspect.getsource(settings))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for node, following in zip(body.body, body.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(following, ast.Expr):
            found[node.target.id] = " ".join(ast.literal_eval(following.value).split())
    return found
