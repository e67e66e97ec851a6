"""The structure of the package in figures, read from its source: rooms, arrows between them, lengths, signatures.

    python benchmarks/structure.py [CHECKOUT]

Nothing of the package is imported, so any version can be looked at. Prints one JSON object on its last line.
"""

import argparse
import ast
import json
import statistics
from collections import defaultdict
from pathlib import Path

FOLDERS = {"cascade": "", "pipelines": "pipelines.", "training": "training."}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", nargs="?", type=Path, default=Path(__file__).parents[1])
    root = parser.parse_args().checkout
    files = {
        prefix + ".".join(path.relative_to(root / folder).with_suffix("").parts): path
        for folder, prefix in FOLDERS.items()
        for path in sorted((root / folder).rglob("*.py"))
    }
    trees = {name: ast.parse(path.read_text()) for name, path in files.items()}
    lengths = {name: len(path.read_text().splitlines()) for name, path in files.items() if path.stat().st_size}
    arrows = {name: targets(tree, set(files)) - {name} for name, tree in trees.items()}
    rooms = defaultdict(set)
    for name, others in arrows.items():
        rooms[name.split(".")[0]] |= {other.split(".")[0] for other in others} - {name.split(".")[0]}
    longest = max(lengths, key=lengths.__getitem__)
    signatures = [(len(given), name, found) for name, tree in trees.items() for found, given in functions(tree)]
    most = max(signatures)
    given = [one for tree in trees.values() for _, arguments in functions(tree) for one in arguments]
    report = {
        "modules_at_the_top": len([n for n in files if "." not in n and not n.startswith("__")]),
        "modules": len(lengths),
        "lines": sum(lengths.values()),
        "arrows": sum(map(len, arrows.values())),
        "rooms_that_know_each_other": sorted(
            f"{a} and {b}" for a in rooms for b in rooms[a] if a < b and a in rooms[b]
        ),
        "circles_of_modules": circles(arrows),
        "longest_file": f"{longest} {lengths[longest]}",
        "median_file": statistics.median(lengths.values()),
        "longest_signature": f"{most[1]}.{most[2]} {most[0]}",
        "parameters": len(given),
        "untyped_parameters": sum(one.annotation is None for one in given),
    }
    print(json.dumps(report))


def targets(tree: ast.Module, names: set[str]) -> set[str]:
    """Modules of the package that a module imports, anywhere in it."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            wanted = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in (one.removeprefix("cascade.") for one in wanted if one.startswith("cascade.")):
            found |= {one for one in (name, f"{name}.__init__") if one in names}
    return found


def functions(tree: ast.Module) -> list[tuple[str, list[ast.arg]]]:
    """Name and parameters of every function and method, without self and cls."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            own = node.args
            given = [*own.posonlyargs, *own.args, *own.kwonlyargs, *filter(None, (own.vararg, own.kwarg))]
            found.append((node.name, [one for one in given if one.arg not in ("self", "cls")]))
    return found


def circles(arrows: dict[str, set[str]]) -> int:
    """How many modules can be reached from themselves."""

    def reached(start: str) -> bool:
        seen: set[str] = set()
        ahead = list(arrows[start])
        while ahead:
            name = ahead.pop()
            if name == start:
                return True
            if name not in seen:
                seen.add(name)
                ahead += arrows.get(name, ())
        return False

    return sum(map(reached, arrows))


if __name__ == "__main__":
    main()
