"""Does the wheel work away from the checkout? Built, installed alone into an empty environment, and tried.

What its core needs is borrowed from the environment that runs this, by links; extras are left out, so that a need for
one of them shows. A full installation from the network is another test, and takes minutes.

    python .ci/wheel_check.py
"""

import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
_LEFT_OUT = (  # extras, and what only they bring; and this package itself, as it is installed from the checkout
    "open3d", "dash", "tensorboard", "transformers", "tokenizers", "submitit", "cellpose", "roifile", "bioio",
    "cascade", "__editable__",
)  # fmt: skip


def main() -> None:
    """Raises CalledProcessError where something does not work."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        run("-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, str(ROOT))
        (wheel,) = place.glob("cascade_microscopy-*.whl")
        print(f"{wheel.name}: {wheel.stat().st_size / 2**20:.1f} MB")
        venv.create(place / "env", with_pip=False)
        python = place / "env" / "bin" / "python"
        site = Path(
            subprocess.check_output([python, "-c", "import site; print(site.getsitepackages()[0])"], text=True).strip()
        )
        for one in borrowed():
            if not one.name.lower().startswith(_LEFT_OUT) and not (site / one.name).exists():
                (site / one.name).symlink_to(one)
        run("-m", "pip", "-q", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
        cascade = place / "env" / "bin" / "cascade"
        for words in (["--version"], ["doctor"], ["sample", "nuclei30", "nuclei"], ["validate", "nuclei"]):
            start = time.perf_counter()
            subprocess.run([cascade, *words], cwd=place, check=True)
            print(f"cascade {' '.join(words)}: {time.perf_counter() - start:.1f} s")


def run(*words: str) -> None:
    """A Python of this environment, in no folder of the checkout."""
    subprocess.run([sys.executable, *words], cwd=tempfile.gettempdir(), check=True)


def borrowed() -> list[Path]:
    """What lies in this environment's site-packages, and in those that its .pth files name."""
    site = Path(sysconfig.get_paths()["purelib"])
    places = [
        site,
        *(Path(line) for file in site.glob("*.pth") for line in file.read_text().split("\n") if line[:1] == "/"),
    ]
    return [one for place in places if place.is_dir() for one in place.iterdir() if one.suffix != ".pth"]


if __name__ == "__main__":
    main()
