"""What docstrings name is there."""

import ast
import importlib
import re

from test_structure import ROOT


def there(name: str) -> bool:
    """Whether a dotted name is a module's, or of something in one."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        for part in parts[end:]:
            found = getattr(found, part, None)
        return found is not None
    return False


def test_names_in_docstrings_can_be_found():
    named = {}
    for path in (path for top in ("cascade", "pipelines", "training") for path in (ROOT / top).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                for name in re.findall(r"`(cascade(?:\.\w+)+)`", str(node.value.value)):
                    named[name] = path.relative_to(ROOT)
    assert named
    assert not {name: str(path) for name, path in named.items() if not there(name)}
