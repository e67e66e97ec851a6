"""Work in a process of its own that does not outlive the one that asked for it: `python -m cascade.commands.child`."""

import contextlib
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import IO

import psutil

_ASKED_BY = "CASCADE_ASKED_BY"  # number of the process that asked
_OFTEN = 0.3  # seconds between two looks
_PATIENCE = 10.0  # seconds that a process has to end by itself


def run_child(
    module: str,
    options: list[str],
    *,
    launched: bool = False,
    output: IO[bytes] | None = None,
    tell: Callable[[], None] | None = None,
) -> int:
    """Run a module with options and wait for it; returns its exit code.

    launched: by accelerate's launcher, in as many processes as that is set up for. output: a file that takes what it
    prints. tell: called a few times a second meanwhile. All processes end when this one does, however it dies, and are
    ended when it is interrupted (KeyboardInterrupt), or `tell` raises something.
    """
    launcher = ["-m", "cascade.commands.launch", "--quiet"] if launched else []
    command = [sys.executable, *launcher, "-m", "cascade.commands.child", module, *options]
    asked = os.environ | {_ASKED_BY: str(os.getpid())}
    errors = None if output is None else subprocess.STDOUT
    # A group of its own: Ctrl-C is for this process, which ends them.
    process = subprocess.Popen(command, env=asked, process_group=0, stdout=output, stderr=errors)
    try:
        while tell is not None:
            tell()
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(_OFTEN)
        return process.wait()
    except BaseException:
        _end(process)
        raise


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and those that it started."""
    try:
        started = psutil.Process(process.pid)
        every = [*started.children(recursive=True), started]
    except psutil.NoSuchProcess:
        return
    for one in every:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.terminate()
    _, left = psutil.wait_procs(every, timeout=_PATIENCE)
    for one in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()


def _is_alive(pid: int) -> bool:
    """Whether a process runs; the dead may wait to be buried. Not by its start, which moves with the clock."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _end_with(pid: int) -> None:
    """Kill this process as soon as that one is no more."""

    def watch() -> None:
        while _is_alive(pid):
            time.sleep(_OFTEN)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Run the module that is named first, with the options after it."""
    asked_by = os.environ.get(_ASKED_BY)
    if asked_by:
        _end_with(int(asked_by))
    module = sys.argv[1]
    sys.argv = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
