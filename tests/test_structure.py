"""The house: which room may know which, read from the imports; and how large a file may be."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]

BASE = {
    "geometry", "rng", "draws", "files", "locks", "ownership", "memory", "processor", "evenly", "settings", "reading",
    "extras", "vendor", "ngff", "waiting",
}  # fmt: skip
PARTS = BASE | {"annotation", "shapes", "optics", "population", "sketch", "diffusion", "gan", "neus", "multiview"}
ALLOWED = {
    "geometry": set(),
    "rng": set(),
    "draws": set(),
    "locks": set(),
    "files": {"locks"},
    "ownership": {"files", "locks"},
    "memory": set(),
    "processor": set(),
    "waiting": set(),
    "evenly": set(),
    "extras": set(),
    "vendor": {"extras"},
    "ngff": {"vendor"},
    "reading": {"vendor", "ngff"},
    "settings": set(),
    "entry": set(),
    "annotation": {"geometry"},
    "shapes": {"geometry", "files"},
    "optics": BASE - {"reading"},
    "hub": {"files", "optics"},
    "export": BASE | {"annotation", "optics"},
    "neus": BASE | {"shapes"},
    "multiview": BASE | {"shapes"},
    "diffusion": BASE | {"optics"},
    "population": BASE | {"annotation", "shapes", "optics", "neus"},
    "simulators": BASE | {"annotation", "shapes", "optics"},
    "sketch": BASE | {"annotation", "shapes", "optics"},
    "gan": BASE | {"annotation", "shapes", "optics", "sketch", "diffusion"},
    "data": BASE | {"annotation", "shapes", "optics", "population", "simulators", "sketch", "gan", "export", "hub"},
    "pipelines": PARTS | {"hub", "export"},
    "generation": PARTS | {"simulators", "pipelines", "export", "hub"},
    "evaluation": BASE | {"annotation", "shapes", "optics", "diffusion", "data", "hub", "export"},
    "app": PARTS | {"simulators", "pipelines", "generation", "data", "export", "hub"},
    "training": PARTS | {"entry", "pipelines", "data", "evaluation", "export", "hub"},
}
"""What each room may import. `data` and `evaluation` are known by nothing that generates."""


def modules() -> dict[Path, tuple[str, ...]]:
    """Files of the package by their dotted names' parts: cascade.optics.noise -> (optics, noise)."""
    found = {}
    for top, prefix in (("cascade", ()), ("pipelines", ("pipelines",)), ("training", ("training",))):
        for path in (ROOT / top).rglob("*.py"):
            parts = path.relative_to(ROOT / top).with_suffix("").parts
            found[path] = prefix + parts
    return found


def imports(path: Path) -> set[str]:
    """Rooms that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "cascade" else [node.module]
            )
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("cascade.") and name != "cascade.__version__"}
    return found


def test_imports_point_one_way():
    wrong = []
    for path, (room, *_) in modules().items():
        if room in ("commands", "__init__", "__main__"):  # the roof: knows all
            continue
        for other in imports(path) - {room}:
            if other not in ALLOWED[room]:
                wrong.append(f"{path.relative_to(ROOT)} imports cascade.{other}")
    assert not wrong, wrong


def test_no_room_is_in_a_circle():
    """The allowed arrows themselves: following them never comes back."""

    def reached(room: str, seen: frozenset[str] = frozenset()) -> bool:
        return any(other in seen | {room} or reached(other, seen | {room}) for other in ALLOWED.get(room, ()))

    assert not [room for room in ALLOWED if reached(room)]


def test_what_paints_knows_no_loss():
    for path, (room, *rest) in modules().items():
        if room in ("pipelines", "population", "optics", "generation"):
            text = path.read_text()
            assert "losses" not in text, path
            assert "encoders" not in text or rest[-1:] == ["encoders"], path


def test_files_are_short():
    """One file, one sentence; what is longer is one network or one algorithm."""
    long = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in modules()}
    assert not {name: count for name, count in long.items() if count > 300}


def test_every_file_says_what_it_is_for():
    for path in modules():
        text = path.read_text()
        assert not text.strip() or ast.get_docstring(ast.parse(text)), path


def test_the_top_of_the_package_is_small():
    loose = {p.stem for p in (ROOT / "cascade").glob("*.py")}
    assert loose == {*BASE, "annotation", "entry", "__init__", "__main__"} - {"geometry"}


def test_every_test_that_the_documentation_names_is_there():
    named, file = re.findall(r"`(?:(test_\w+)::)?(test_\w+)`", (ROOT / "docs" / "nothing-lost.md").read_text()), ""
    assert len(named) > 60
    for where, name in named:
        file = where or file
        assert f"def {name}(" in (ROOT / "tests" / f"{file}.py").read_text(), f"{file}::{name}"
