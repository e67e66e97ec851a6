"""Generation that is killed twenty times against one left alone: are the bytes the same?

    python benchmarks/resume.py [--quick]

Starts `cascade generate` on the embedded nuclei2d, kills it with SIGKILL at random moments of its working life, starts
it again, and lets the last one finish; then the same set is made by two and by four processes at once. Prints one JSON
object on its last line.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import machine

IMAGES = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="four kills, two processes")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        start = time.perf_counter()
        assert launch(folder / "alone").wait() == 0
        seconds = time.perf_counter() - start
        whole = digests(folder / "alone")
        report = {"images": IMAGES, "files": len(whole), "seconds_undisturbed": round(seconds, 1)}
        report |= killed(folder / "killed", 4 if quick else 20, whole, seconds)
        for count in (2,) if quick else (2, 4):
            processes = [launch(folder / f"by{count}", rank, count) for rank in range(count)]
            codes = [process.wait() for process in processes]
            report[f"equal_with_{count}_processes"] = codes == [0] * count and digests(folder / f"by{count}") == whole
    report["machine"] = machine()
    print(json.dumps(report))


def launch(output_dir: Path, rank: int = 0, world: int = 1) -> subprocess.Popen:
    """One process of `cascade generate`, as accelerate would start it."""
    arguments = ["--canvas_size", "96", "96", "--cells_per_image", "3", "--num_inference_steps", "4"]
    arguments += ["--num_images", str(IMAGES), "--shard_size", "2", "--output_dir", str(output_dir)]
    return subprocess.Popen(
        [sys.executable, "-m", "cascade", "generate", "--model", "nuclei2d", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"RANK": str(rank), "WORLD_SIZE": str(world), "OMP_NUM_THREADS": "1"},
    )


def killed(output_dir: Path, kills: int, whole: dict[str, str], seconds: float) -> dict:
    """Kill at random moments, each process a little after it has begun to work, until `kills` were dealt."""
    rng, dealt, lost = np.random.default_rng(0), 0, 0
    marks: dict[Path, float] = {}
    while dealt < kills:
        process = launch(output_dir)
        partial = output_dir / ".cascade" / "partial"
        while process.poll() is None and not list(partial.glob(f"*-{process.pid}")):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 2 * seconds / IMAGES))
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            break
        dealt += 1
        found = {p: p.stat().st_mtime for p in output_dir.glob(".cascade/shards/*.json")}
        lost += sum(found.get(path) != made for path, made in marks.items())  # a finished shard is never touched again
        marks = found
    code = launch(output_dir).wait()
    return {
        "kills": dealt,
        "finished_shards_lost_or_made_twice": lost,
        "equal_after_kills": code == 0 and digests(output_dir) == whole,
    }


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file of a data set."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and ".cascade" not in p.parts)
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


if __name__ == "__main__":
    main()
