"""The documentation: its commands are understood by the parsers, its flags and files exist, notebooks are bare."""

import ast
import importlib
import json
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from cascade.commands.cli import STAGES, flags_of
from cascade.commands.organism import simulation_flags
from cascade.commands.table import COMMANDS
from cascade.simulators.catalogue import ORGANISMS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOTEBOOKS = sorted((ROOT / "docs/tutorials").glob("*.ipynb"))
SCRIPTS = {script: stage for stage, script in STAGES.items()}
LAUNCHERS = {"--num_processes", "--nproc_per_node", "--num_cpu_threads_per_process"}  # of accelerate and torchrun
FOREIGN = {"cellpose", "hf", "source", "cd", "export"}


def name_of(path):
    return str(path.relative_to(ROOT))


def code_of(path):
    """The code cells of a notebook."""
    cells = json.loads(path.read_text())["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def numbers_of(path):
    """What a notebook's cells set to a constant, by name."""
    found = re.findall(r"^([A-Z_]+) = (.+?)(?:  #.*)?$", "\n".join(code_of(path)), re.M)
    return {name: ast.literal_eval(value) for name, value in found}


def commands_of(path):
    """The words of each command line: of blocks marked bash, of commands in backticks that are whole, of `!` lines."""
    if path.suffix == ".ipynb":
        lines = [line.removeprefix("# ") for code in code_of(path) for line in code.replace("\\\n", " ").splitlines()]
        lines = [line[1:] for line in lines if line.startswith("!")]
        lines = [line.format(**numbers_of(path)) for line in lines]
    else:
        text = path.read_text()
        blocks = re.findall(r"^```(?:bash|sh|shell)\n(.*?)^```", text, re.S | re.M)
        lines = [line for block in blocks for line in block.replace("\\\n", " ").split("\n")]
        whole = re.findall(r"(?<!`)`(cascade [^`]+)`(?!`)", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))
        lines += [" ".join(code.split()) for code in whole if "--output_dir" in code and "…" not in code]
    found = [shlex.split(line, comments=True) for line in lines]
    return [words for words in found if words]


def check(words, stage_settings):
    """Raises what the real parser raises; nothing is run."""
    program, *rest = words
    if program == "cascade":
        check_cascade(rest, stage_settings)
    elif program == "accelerate":
        assert rest.pop(0) == "launch"
        rest = without_launcher(rest)
        assert (ROOT / rest[0]).is_file()
        check_cascade(["train", SCRIPTS[Path(rest[0]).stem], *rest[1:]], stage_settings)
    elif program == "torchrun":
        rest = without_launcher(rest)
        assert rest[:2] == ["-m", "cascade"]
        check_cascade(rest[2:], stage_settings)
    elif program in ("make", "python"):
        target = f"{rest[0]}:" if program == "make" else ""
        assert re.search(rf"^{target}", (ROOT / "Makefile").read_text(), re.M) if target else (ROOT / rest[0]).is_file()
    elif program == "pip":
        assert rest[0] == "install"
        known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for extras in re.findall(r"\[([\w,]+)\]", " ".join(rest)):
            assert set(extras.split(",")) <= set(known)
    else:
        assert program in FOREIGN, f"there is no command {program}"


def check_cascade(words, stage_settings):
    name, *rest = words
    if name == "--help" or rest[-1:] == ["--help"] or rest == ["…"]:
        assert name == "--help" or name in [*COMMANDS, "train", "simulate"]
    elif name == "train":
        stage_settings(rest[0], rest[1:])
    elif name == "simulate":
        simulation_flags(rest[0]).parse(rest[1:])
    else:
        assert name in COMMANDS, f"there is no command cascade {name}"
        flags_of(name).parse(rest)


def without_launcher(words):
    while words[0] in LAUNCHERS:
        words = words[2:]
    return words


@pytest.fixture
def stage_settings(monkeypatch):
    """Parse the flags of a training stage, as its script does before anything else."""

    def parse(stage, words):
        module = importlib.import_module(f"cascade.training.{STAGES[stage]}")
        monkeypatch.setattr(sys, "argv", ["cascade"])
        return module.parse(module.Settings, module.__doc__, words)

    return parse


@pytest.mark.parametrize("path", [*PAGES, *NOTEBOOKS], ids=name_of)
def test_commands_are_understood(path, stage_settings, monkeypatch):
    monkeypatch.chdir(ROOT)  # configs are named as in a checkout
    for words in commands_of(path):
        check(words, stage_settings)


@pytest.mark.parametrize(
    "wrong",
    ["cascade fitt images --output_dir x", "cascade fit images --output_dir x --budgett 3", "make coffee",
     "cascade train mask --data x --output_dir y --learning_rat 1", "cascade simulate snails --output_dir x",
     "accelerate launch training/train_all.py --data x", "pip install -e '.[moon]'", "python benchmarks/none.py",
     "fit my_images"],
)  # fmt: skip
def test_what_is_no_command_is_found(wrong, stage_settings, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises((AssertionError, ValueError, SystemExit, KeyError)):
        check(shlex.split(wrong), stage_settings)


def test_the_readme_shows_what_most_people_do():
    first = {words[1] for words in commands_of(ROOT / "README.md") if words[0] == "cascade"}
    assert first >= {"fit", "generate", "evaluate"}


@pytest.mark.parametrize("path", [page for page in PAGES if page.name != "RESULTS.md"], ids=name_of)
def test_flags_in_prose_exist(path):
    prose = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.S | re.M)
    ours = [code for code in re.findall(r"`([^`]+)`", prose) if code.split()[0] not in FOREIGN]
    flags = {flag for code in ours for flag in re.findall(r"(?<![\w-])--[a-z]\w*", code)}
    assert flags <= known_flags(), f"there is no {', '.join(sorted(flags - known_flags()))}"


def known_flags():
    found = {"--help", "--config", "--port"} | LAUNCHERS
    for name in COMMANDS:
        found |= {f"--{one.name}" for one in flags_of(name).fields}
    for name in ORGANISMS:
        found |= {f"--{one.name}" for one in simulation_flags(name).fields}
    for script in STAGES.values():
        found |= {f"--{name}" for name in field_names(f"training/{script}.py")}
    return found | {f"--{name}" for name in field_names("training/settings.py")}


def field_names(path):
    """Names that classes of a file annotate: the fields of its settings, without importing torch."""
    tree = ast.parse((ROOT / path).read_text())
    bodies = [node for kind in ast.walk(tree) if isinstance(kind, ast.ClassDef) for node in kind.body]
    return {node.target.id for node in bodies if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)}


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_python_can_be_parsed_and_its_names_exist(path):
    import cascade

    for code in re.findall(r"^```python\n(.*?)^```", path.read_text(), re.S | re.M):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module == "cascade":
                assert {one.name for one in node.names} <= set(cascade.__all__)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name_of)
def test_notebooks_are_bare(path):
    notebook = json.loads(path.read_text())
    assert all(not cell.get("outputs") and not cell.get("execution_count") for cell in notebook["cells"])
    assert not re.search(r"/(home|root|tmp|Users|work)/", path.read_text())
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}


def test_tutorials_are_all_run_and_shown():
    sys.path.insert(0, str(ROOT / "docs/tutorials"))
    try:
        run = importlib.import_module("run")
    finally:
        sys.path.pop(0)
    assert sorted(run.TINY) == [path.stem for path in NOTEBOOKS]
    shown = yaml.safe_dump(yaml.safe_load((ROOT / "docs/site/mkdocs.yml").read_text())["nav"])
    for path in NOTEBOOKS:
        ast.parse(run.script(path))
        assert f"tutorials/{path.name}" in shown


def test_pages_that_are_linked_exist():
    for path in [*PAGES, *NOTEBOOKS]:
        prose = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.S | re.M)
        for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose):
            if "://" not in link:
                assert (path.parent / link).exists(), f"{name_of(path)} links to {link}"
