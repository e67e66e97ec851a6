"""The site's pages that are written elsewhere: the README, the changelog, and the reference of commands and names."""

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
_COLUMNS = "100"  # of the help's lines


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The changelog is part of the navigation where there is one."""
    if (ROOT / "CHANGELOG.md").exists() and config.nav is not None:
        config.nav.append({"Changelog": "changelog.md"})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Pages beside those of docs/."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for place in re.findall(r"\]\((cascade/[^)]+)\)", readme):  # pictures that come with the package
        files.append(File.generated(config, place, abs_src_path=str(ROOT / place)))
    made = {
        "index.md": readme.replace("](docs/", "]("),
        "reference/commands.md": commands(),
        "reference/python.md": names(),
    }
    if (ROOT / "CHANGELOG.md").exists():
        made["changelog.md"] = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").replace("](docs/", "](")
    for place, text in made.items():
        files.append(File.generated(config, place, content=text))
    return files


def on_page_content(html: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links of notebooks, which are between files, are between pages here."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html
    return re.sub(r'href="((?:\.\./)?[\w/-]+)\.(?:ipynb|md)"', r'href="../\1/"', html)


def commands() -> str:
    """What `--help` says of every command, every organism and every stage."""
    from cascade.commands.cli import STAGES
    from cascade.commands.table import COMMANDS
    from cascade.simulators.catalogue import ORGANISMS

    wanted = [[], *([name] for name in COMMANDS), ["simulate"], *(["simulate", name] for name in ORGANISMS)]
    wanted += [["train"], *(["train", stage] for stage in STAGES)]
    text = "# Commands\n\nThis is what each command says of itself. `--config FILE.yaml` holds any of the settings.\n"
    for words in wanted:
        text += f"\n## {' '.join(['cascade', *words])}\n\n```text\n{_help(words).strip()}\n```\n"
    return text


def names() -> str:
    """What `from cascade import …` gives, explained by docstrings."""
    import cascade

    text = "# Python\n\n`from cascade import …` gives these names; each is imported when it is first used.\n"
    for name, module in cascade._PUBLIC.items():
        text += f"\n::: {module}.{name}\n"
    return text


def _help(words: list[str]) -> str:
    from cascade.commands.cli import main

    said = io.StringIO()
    with _as_command(), redirect_stdout(said), suppress(SystemExit):
        main([*words, "--help"])
    return said.getvalue()


@contextmanager
def _as_command() -> Iterator[None]:
    words, columns = sys.argv, os.environ.get("COLUMNS")
    sys.argv, os.environ["COLUMNS"] = ["cascade"], _COLUMNS
    try:
        yield
    finally:
        sys.argv = words
        os.environ.pop("COLUMNS") if columns is None else os.environ.update(COLUMNS=columns)
