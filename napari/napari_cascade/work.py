"""Work beside the window, one piece at a time: told how far it is, stopped at any time, its end in one line."""

from collections.abc import Callable
from typing import Any

from napari.qt.threading import create_worker
from qtpy.QtCore import QObject, Signal

Tell = Callable[[Any], None]
_MISTAKES = (ValueError, OSError, ImportError, RuntimeError, MemoryError)  # of the input, or of the machine


class Stopped(Exception):
    """The user asked for it."""


class Work(QObject):
    """Runs functions that take a `tell` and call it often.

    Signals, in the window's own thread: told with what the function tells, ended with what it returned or the exception
    that it ended with. An exception that is no mistake of the input is shown by napari, too.
    """

    told = Signal(object)
    ended = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._worker: Any = None
        self.ended.connect(self._forget)  # before anyone else hears of it

    @property
    def is_running(self) -> bool:
        """Whether something has not ended yet."""
        return self._worker is not None

    def start(self, function: Callable[[Tell], Any]) -> None:
        """Begin a function; the one before it must have ended."""
        if self.is_running:
            raise RuntimeError("one piece of work at a time")
        self._worker = create_worker(self._run, function, _start_thread=False)
        self._worker.start()

    def stop(self) -> None:
        """Ask what runs to end: it does when it tells something next, by `Stopped`. napari asks, too, when it ends."""
        if self._worker is not None:
            self._worker.quit()

    def _run(self, function: Callable[[Tell], Any]) -> None:
        worker = self._worker

        def tell(what: Any) -> None:
            if worker.abort_requested:
                raise Stopped
            self.told.emit(what)

        try:
            result = function(tell)
        except (Stopped, *_MISTAKES) as error:
            self.ended.emit(error)
        except Exception as error:
            self.ended.emit(error)
            raise
        else:
            self.ended.emit(result)

    def _forget(self, _: object) -> None:
        self._worker = None


def in_one_line(error: BaseException) -> str:
    """What an exception says, without breaks.

    >>> in_one_line(ValueError("two\\nlines"))
    'two lines'
    """
    said = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "out of memory" in said.lower():
        return "not enough memory: ask for smaller or fewer images"
    return said or type(error).__name__
