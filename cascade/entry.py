"""How a command ends: with one line and an exit code, whatever happens; a traceback is a mistake of this package."""

import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from types import FrameType

_NOISY = ("accelerate", "datasets", "diffusers", "httpx", "matplotlib", "transformers")
_GOES_ON = "what is finished is kept, and the same command goes on"
_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


class UsageError(ValueError):
    """Flags or settings that cannot be: exit code 2, as command lines have it."""


def end_in_one_line() -> None:
    """Ctrl-C and SIGTERM end this process in one line from here on, while heavy packages are imported; `exit_code`
    takes over from there. Where there is no terminal, no progress bar is drawn."""
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # which tqdm reads as it is imported
    for number in _WORDS:
        signal.signal(number, _leave)


def exit_code(
    function: Callable[[], object],
    name: str,
    *,
    kept: str = _GOES_ON,
    smaller: str = "ask for less at once",
    said: Callable[[str], str] = str,
    mistakes: tuple[type[Exception], ...] = (),
) -> int:
    """Run a command and return its exit code: 0; 1 for mistakes in the input, 2 in the flags; 130 and 143 after Ctrl-C
    and SIGTERM, 141 where nobody reads its output any more.

    name: of the command, before each message. kept: what is left of an interrupted one. smaller: what to do where
    memory is short. said: how messages of the library are put in terms of flags. mistakes: exceptions of its own that
    are the input's fault, besides ValueError, OSError and ImportError. Others are raised.
    """
    _set_up_output()
    with _signals(name, kept) as stopped, _without_warnings():
        try:
            function()
            sys.stdout.flush()
            return 0
        except BrokenPipeError:
            _close_output()
            return 141
        except BaseException as error:  # an interruption may come out of foreign code as any exception
            if stopped or isinstance(error, KeyboardInterrupt):
                number = stopped[0] if stopped else signal.SIGINT
                known = str(error) if isinstance(error, KeyboardInterrupt) else ""  # who was stopped knows best
                _end_bars(error)
                _say(name, f"{_WORDS[number]}: {known or kept}")
                return 128 + number
            if _is_of_memory(error):
                _end_bars(error)
                _say(name, f"not enough memory: {smaller} ({_first_line(error)})")
                return 1
            if isinstance(error, (ValueError, OSError, ImportError, *mistakes)) or _is_ours(error):
                _end_bars(error)
                _say(name, said(str(error)))
                return 2 if isinstance(error, UsageError) else 1
            raise


def processes() -> tuple[int, int]:
    """This process's number and how many share the work, as torchrun and accelerate say in the environment.

    Raises ValueError for numbers that cannot be.
    """
    found = {}
    for name, usual in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")):
        text = os.environ.get(name, usual)
        if not (text.isascii() and text.isdecimal()):
            raise ValueError(f"the environment has {name}={text}: set it to a whole number, or unset it")
        found[name] = int(text)
    rank, world = found["RANK"], found["WORLD_SIZE"]
    if rank >= world:
        raise ValueError(f"the environment has RANK={rank} and WORLD_SIZE={world}: ranks go from 0, below that")
    return rank, world


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"cascade: stopped before anything was begun\n")
    os._exit(128 + number)


@contextmanager
def _signals(name: str, kept: str) -> Iterator[list[signal.Signals]]:
    """Ctrl-C and SIGTERM raise KeyboardInterrupt, and are noted in the list; a process that is about to import leaves
    at once, since foreign code that is broken off while it starts may crash, or swallow the exception."""
    stopped: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield stopped  # only the main thread may ask for signals
        return
    owner, hook = os.getpid(), sys.unraisablehook

    def leave(number: int) -> None:
        if os.getpid() == owner:  # the children that foreign code forks have nothing to say
            os.write(2, f"{name}: {_WORDS[signal.Signals(number)]}: {kept}\n".encode())
        os._exit(128 + number)

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner or _is_importing(frame):
            leave(number)
        stopped.append(signal.Signals(number))
        raise KeyboardInterrupt

    def unraisable(what: "sys.UnraisableHookArgs") -> None:
        if stopped and issubclass(what.exc_type, KeyboardInterrupt):
            leave(stopped[0])  # it came while an object was deleted, where exceptions are lost
        hook(what)

    before = {number: signal.signal(number, stop) for number in _WORDS}
    sys.unraisablehook = unraisable
    try:
        yield stopped
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Warnings of other packages are for developers, who ask for them: `python -W`."""
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        yield


def _set_up_output() -> None:
    """Characters that a terminal does not know are replaced, and others' notes left out."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")  # it tells of missing weights at length before we do


def _close_output() -> None:
    """What is still to be written goes nowhere, so that Python does not complain about it when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())


def _say(name: str, message: str) -> None:
    print(f"{name}: {message}", file=sys.stderr)


def _end_bars(error: BaseException) -> None:
    """Let go of what the broken-off functions held: progress bars end their line before anything more is written."""
    raised: BaseException | None = error
    while raised is not None:
        traceback.clear_frames(raised.__traceback__)
        raised = raised.__context__


def _is_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error).lower() for words in ("out of memory", "can't allocate memory")
    )


def _is_ours(error: BaseException) -> bool:
    """Whether a RuntimeError was raised by this package's own code, which says what to do; torch's are mistakes."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))
    return isinstance(error, RuntimeError) and where.split(".")[0] in ("cascade", "__main__")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
