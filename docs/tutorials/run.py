"""Run the tutorials with tiny numbers: python docs/tutorials/run.py [NAME …]

Code cells run as one script each, in a folder that is removed afterwards; of the first code cell, which holds the
numbers, those of TINY take the place. Lines that begin with "!" are commands. Prints what each took, and ends with 1 if
one failed.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
_PREPARED = "mask texture assemble generate"  # left out of fit: tests train, and minutes would go into it here
TINY = {
    "thirty_cells": dict(CELLS=8, NUM_IMAGES=2, BANK=4, EPOCHS=1, MADE=6, FIELD=160, SKIP=_PREPARED, MODEL="nuclei2d"),
    "one_slice": dict(NUM_IMAGES=1, BANK=2, NUM_STACKS=2, FIELD=72, CELLS=3, SKIP=_PREPARED, MODEL="nuclei3d"),
    "no_annotation": dict(NUM_IMAGES=1, FIELD=160, MADE=6, TRIED=1, SKIP="sketch tune generate evaluate"),
    "judge": dict(SEEDS=1, STEPS=2, FRAMES=2, FIELD=160, BANK=6),
    "share": dict(NUM_IMAGES=1, BANK=3, FIELD=96),
}
_SHELL = """import subprocess


def _shell(line):
    subprocess.run(line, shell=True, check=True)


"""


def cells(path: Path) -> list[str]:
    """The code of a notebook."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def script(path: Path) -> str:
    """A notebook as one script, with its tiny numbers."""
    numbers, *rest = cells(path)
    for name, value in TINY[path.stem].items():
        numbers, count = re.subn(rf"^{name} = [^#\n]*", f"{name} = {value!r}  ", numbers, flags=re.M)
        if not count:
            raise ValueError(f"{path}: its first code cell sets no {name}")
    code = "\n".join([numbers, *rest]).replace("\\\n", " ")
    return _SHELL + re.sub(r"^!(.*)$", lambda found: f"_shell(f{found[1]!r})", code, flags=re.M) + "\n"


def run(path: Path) -> bool:
    """Run a notebook; whether it came to its end. What it said is shown if not."""
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    quiet = os.environ | {"PATH": beside, "MPLBACKEND": "agg", "HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tutorial.py").write_text(script(path), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "tutorial.py"],
            cwd=folder,
            env=quiet,
            text=True,
            encoding="utf-8",
            errors="replace",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    print(f"{path.stem}: {'' if done.returncode == 0 else 'failed, '}{time.perf_counter() - start:.0f} s", flush=True)
    if done.returncode:
        print("\n".join(done.stdout.splitlines()[-40:]))
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(0 if all([run(HERE / f"{name}.ipynb") for name in sys.argv[1:] or TINY]) else 1)
