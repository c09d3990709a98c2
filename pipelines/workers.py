"""Worker processes of one thread each, and what they must not do at once. Knows no verb and no dataset."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

_AHEAD = 256
Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def workers_on(device: str) -> int:
    """Return how many processes sample best on a device when nobody says: one a core, one in all on a GPU."""
    return cores() if device == "cpu" else 1


def run_all(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    start: Callable[..., None],
    job: Any,
    ahead: int = _AHEAD,
) -> Iterator[Result]:
    """Yield `work(item)` of every item, in order, from processes that `start(job)` begins.

    ahead   items handed out at once, however many there are: memory does not grow with them
    Errors: SynthError where a process was ended from outside, as a system short of memory does.
    """
    import multiprocessing
    from collections import deque
    from concurrent.futures import Future, ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    from synth.errors import SynthError

    # spawn: a forked copy of a process whose torch threads have run can hang
    context = multiprocessing.get_context("spawn")
    before = multiprocessing.active_children()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(start, job))
    try:
        # not pool.map, which cancels what a broken pool is about to mark as failed: that breaks the pool itself
        handed: deque[Future[Result]] = deque()
        for item in items:  # processes begin as items come
            handed.append(pool.submit(work, item))
            if len(handed) >= max(ahead, workers):
                yield handed.popleft().result()
        while handed:
            yield handed.popleft().result()
    except BrokenProcessPool as error:
        # the pool has told the others to terminate, which they do not hear, and waits for their end
        for worker in multiprocessing.active_children():
            if worker not in before:
                worker.kill()
        raise SynthError(
            "a worker process was ended from outside (out of memory?); give fewer --workers and run again"
        ) from error
    finally:  # once alone: a second call takes the first one's cancelling back, and all that was handed out is done
        pool.shutdown(cancel_futures=True)


def _start(start: Callable[..., None], job: Any) -> None:
    """Prepare a worker: interruptions are the parent's to handle, an end when the parent is gone, one thread."""
    import multiprocessing

    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGUSR1", signal.SIGTERM)):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def leave_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    import torch

    torch.set_num_threads(1)
    start(job)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold `folder` for this process, so that shards that start or end together write its common files in turn.

    Where the system or the disk knows no such lock, nothing is held.
    """
    held: int | None = None
    with contextlib.suppress(ImportError, OSError):
        import fcntl

        held = os.open(folder, os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if held is not None:
            os.close(held)


@contextlib.contextmanager
def only_one(path: Path, number: int, what: str) -> Iterator[None]:
    """Hold a file's byte `number` for this process, so that two commands do not write the same samples at once.

    Where the system or the disk knows no such lock, nothing is held. Errors: OutputError where it is held already.
    """
    import errno

    from synth.errors import OutputError

    held = None
    try:
        import fcntl

        held = path.open("r+b")
        fcntl.lockf(held, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
    except ImportError:
        pass
    except OSError as error:
        if held is not None and error.errno in (errno.EACCES, errno.EAGAIN):
            held.close()
            raise OutputError(f"another process is making {what}; wait for its end, or end it") from error
    try:
        yield
    finally:
        if held is not None:
            held.close()
