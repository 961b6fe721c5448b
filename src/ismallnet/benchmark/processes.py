"""Work in processes of their own, asked one after another: while one works the others wait.

What is timed together has to be apart: how memory is kept, denormal numbers are flushed, and how many threads
a runtime has waiting belong to a process, and PyTorch is slower where other runtimes have run before.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

Work = Callable[[Any], Any]
"""From a question to an answer, both of which can be pickled."""


@contextmanager
def processes(starts: Mapping[str, Callable[[], Work]]) -> Iterator[dict[str, Work]]:
    """Start a process for each entry, and end all of them at last.

    Args:
        starts: By name, what makes the work, in its process; it has to be picklable.

    Yields:
        By name, the work: called here, done there. An exception there is raised here; RuntimeError where
        the process died.
    """
    context = multiprocessing.get_context("spawn")
    running: list[SpawnProcess] = []
    asked: dict[str, Work] = {}
    try:
        for name, start in starts.items():
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(start, theirs), daemon=True)
            process.start()
            theirs.close()
            running.append(process)
            asked[name] = partial(_ask, ours, name)
        yield asked
    finally:
        for process in running:
            process.terminate()
            process.join()


def _ask(pipe: Connection, name: str, question: Any) -> Any:
    with suppress(BrokenPipeError, ConnectionResetError):  # it has ended, and may have said why
        pipe.send(question)
    try:
        answer = pipe.recv()
    except (EOFError, ConnectionResetError):
        raise RuntimeError(f"the process of {name} died; is there enough memory?") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _serve(start: Callable[[], Work], pipe: Connection) -> None:
    try:
        work = start()
        while True:
            pipe.send(work(pipe.recv()))
    except EOFError:  # nobody asks any more
        pass
    except Exception as error:  # raised by the one who asks
        pipe.send(error)
