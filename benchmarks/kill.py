"""One hundred kill -9 at random moments over generate, prepare, train and fit: is what comes out what it would be?

    python benchmarks/kill.py [--quick] [--only generate prepare train fit]

Each command is killed at a random moment of its work and started again, until it ends; then what it wrote is compared,
byte by byte, with what an undisturbed run wrote, and its folder is searched for what a killed process left. This is
repeated until the kills are dealt. Marks of finished shards must never change on the way. Logs, which hold times, and
checkpoints are not compared. Prints one JSON object on its last line.
"""

import argparse
import hashlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import datasets  # noqa: F401  imported here, so that no child has to
import numpy as np
import tifffile
from common import machine
from scipy import ndimage
from tqdm.auto import tqdm

import cascade.commands.fit
import cascade.commands.generate
import cascade.data.prepare
import cascade.training.train_ldm
import cascade.training.train_mask_ddpm  # noqa: F401
from cascade.commands.cli import main as command_line

KILLS = {"generate": 40, "prepare": 30, "train": 20, "fit": 10}
CONFIGS = Path(__file__).parents[1] / "configs"
LEFT = (".partial", ".lock")
LEFT_FOLDERS = ("partial", "filling", "trial", "lock")
GENERATE = ["--canvas_size", "96", "96", "--cells_per_image", "2", "--num_inference_steps", "2", "--bank", "8"]
FIT = ["--crop_size", "32", "--budget", "0.01", "--skip", "generate"]  # of a texture without training nothing is made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="eight kills")
    parser.add_argument("--only", nargs="+", choices=tuple(KILLS), default=tuple(KILLS))
    options = parser.parse_args()
    report: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        images = made_up(work / "images")
        commands = {
            "generate": ["generate", *GENERATE, "--num_images", "12", "--shard_size", "2"],
            "prepare": ["prepare", str(images), "--crop_size", "32"],
            "train": ["train", "mask", "--config", str(CONFIGS / "tiny_mask_ddpm.yaml"), "--data", str(work / "crops")],
            "fit": ["fit", str(images), *FIT, "--base_model", str(work / "base")],
        }
        commands["train"] += ["--max_train_steps", "24", "--checkpointing_steps", "4", "--train_batch_size", "2"]
        commands["train"] += ["--resume_from_checkpoint", "latest"]
        assert finished(launch(commands["prepare"], work / "crops"))
        if "fit" in options.only:
            small_stages(work)
        for name in options.only:
            kills = 2 if options.quick else KILLS[name]
            report[name] = series(commands[name], work / name, kills)
            print(json.dumps({name: report[name]}), file=sys.stderr)
        report["machine"] = machine()
    print(json.dumps(report))


def small_stages(work: Path) -> None:
    """A mask stage and a texture stage of a few steps, for fit to go on from: its own networks take minutes."""
    (work / "base").mkdir()
    for stage, config, output, more in (
        ("mask", "tiny_mask_ddpm", "base/mask", ["--max_train_steps", "10"]),
        ("ldm", "tiny_ldm", "foundation", []),
        ("controlnet", "tiny_controlnet", "base/texture", ["--base_model", str(work / "foundation")]),
    ):
        command = ["train", stage, "--config", str(CONFIGS / f"{config}.yaml"), "--data", str(work / "crops"), *more]
        assert finished(launch(command, work / output)), (work / f"{output}.log").read_text()[-2000:]


def series(command: list[str], place: Path, kills: int) -> dict[str, object]:
    """Kill and start again until the kills are dealt and the last run has ended."""
    place.mkdir()
    start = time.perf_counter()
    assert finished(launch(command, place / "alone")), (place / "alone.log").read_text()[-2000:]
    seconds = time.perf_counter() - start
    whole = digests(place / "alone")
    rng, dealt, rounds = np.random.default_rng(0), 0, 0
    found = {"other_bytes": 0, "failed": 0, "stray": 0, "finished_work_made_twice": 0}
    while dealt < kills:
        folder, rounds = place / f"killed{rounds}", rounds + 1
        marks: dict[Path, int] = {}
        ended = False
        while not ended:
            process = launch(command, folder)
            ended = dealt == kills or not killed_after(rng.uniform(0, seconds), process)
            if ended:
                found["failed"] += not finished(process)
            else:
                dealt += 1
            now = {path: path.stat().st_mtime_ns for path in folder.glob("**/.cascade/shards/*.json")}
            found["finished_work_made_twice"] += sum(now.get(path) != made for path, made in marks.items())
            marks = now
        here = digests(folder)
        found["other_bytes"] += sum(here.get(name) != whole.get(name) for name in here.keys() | whole.keys())
        found["stray"] += len(strays(folder))
        for path in strays(folder)[:5]:
            print("stray:", path, file=sys.stderr)
        for name in sorted(here.keys() | whole.keys()):
            if here.get(name) != whole.get(name):
                print("other:", name, name in here, name in whole, file=sys.stderr)
    return {"kills": dealt, "rounds": rounds, "files": len(whole), "seconds": round(seconds, 1), **found}


def launch(command: list[str], output: Path) -> int:
    """One run in a process forked from this one, which has imported everything; its number."""
    process = os.fork()
    if process:
        return process
    with (output.parent / f"{output.name}.log").open("a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    tqdm.set_lock(threading.RLock())  # the usual one is shared by all processes, and would die locked
    code = 1
    try:
        code = command_line([*command, "--output_dir", str(output)])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def killed_after(seconds: float, process: int) -> bool:
    """Kill a process after a while; False if it had ended by then (and can still be waited for)."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return False
        time.sleep(0.005)
    os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    return os.WIFSIGNALED(status)


def finished(process: int) -> bool:
    """Wait; whether it ended well."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    except ChildProcessError:  # it ended in the moment of its death
        return True


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file that was made; where it is on this machine is not a part of it."""
    own = str(folder).encode()
    texts = {path: path.read_bytes().replace(own, b"") for path in made(folder, _is_kept)}
    return {str(path.relative_to(folder)): hashlib.sha256(text).hexdigest() for path, text in texts.items()}


def strays(folder: Path) -> list[Path]:
    """What no finished run leaves: locks, temporary files and folders, of its own and beside it."""
    names = {folder.name, f"{folder.name}.log"}
    beside = [p for p in folder.parent.glob(f"*{folder.name}*") if p.name not in names]
    inside = [p for p in folder.rglob("*") if p.suffix in LEFT]
    inside += [p for name in LEFT_FOLDERS for p in folder.rglob(f".cascade/{name}")]
    return inside + beside


def made(folder: Path, keep: Callable[[Path], bool]) -> list[Path]:
    """Files, sorted."""
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and keep(path.relative_to(folder))]


def _is_kept(path: Path) -> bool:
    passing = any(part == ".cascade" or part.startswith(("checkpoint-", "tensorboard")) for part in path.parts)
    return not passing and path.name not in ("log.jsonl", "fit.json") and "events.out" not in path.name


def made_up(folder: Path) -> Path:
    """A Cell Tracking Challenge data set of four planes of bright discs."""
    rng = np.random.default_rng(0)
    for n in range(4):
        labels, light = np.zeros((128, 128), np.uint16), np.zeros((128, 128))
        for y, x in np.stack(np.meshgrid(np.arange(20, 120, 30), np.arange(20, 120, 30)), -1).reshape(-1, 2):
            dy, dx = np.indices(labels.shape) - (np.array([y, x]) + rng.uniform(-4, 4, 2))[:, None, None]
            cell = dy**2 * rng.uniform(0.7, 1.4) + dx**2 < rng.uniform(7, 10) ** 2
            labels[cell] = labels.max() + 1
            light += cell * rng.uniform(300, 900)
        image = rng.poisson(120 + ndimage.gaussian_filter(light, 1.0)) + rng.normal(0, 4, labels.shape)
        image = np.clip(image, 0, 65535).astype(np.uint16)
        for name, array in ((f"01/t{n:03d}.tif", image), (f"01_GT/SEG/man_seg{n:03d}.tif", labels)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(folder / name, array)
    return folder


if __name__ == "__main__":
    main()
