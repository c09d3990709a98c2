"""Samples from the workers of a Ray cluster, or of one that is begun here. Which samples, and of what, others know.

Every actor loads the model once and works with one thread; on GPUs each has one. Only whole numbers travel. An actor
that is lost is begun again and its sample made anew, whose bytes are the same.
"""

import contextlib
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.asks import Job

LOST_MOST = 3
"""How often one sample may lose its actor before the run ends: one that kills its process would do so for ever."""
_STORE_BYTES = 80 << 20


def run_on_ray(job: "Job", items: Sequence[int], *, workers: int, ahead: int, address: str | None) -> Iterator[int]:
    """Yield each item once its sample is written, as they come.

    workers   actors; 0 = one a core of the cluster, or one a GPU where the job's device is one
    ahead     samples handed to each actor at once
    address   of a cluster (host:port, ray://host:port, auto); None begins one on this machine
    Errors: ConfigError where ray is not installed or the address does not answer; SynthError for lost actors, and those
    of the samples.
    """
    from synth.errors import ConfigError, SynthError

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
        from ray.exceptions import ActorDiedError, RayError, RayTaskError
    except ImportError as error:
        raise ConfigError(
            "--engine ray needs ray, which is not installed; pip install 'synthvol[ray]', or leave --engine out"
        ) from error
    on_gpu = job.device.startswith("cuda")
    _begin(ray, address, workers)
    try:
        there = ray.cluster_resources()
        room = int(there.get("GPU" if on_gpu else "CPU", 0))
        count = min(workers or room, room, len(items))
        if count < 1:
            raise ConfigError(f"the Ray cluster has no {'GPU' if on_gpu else 'CPU'} to work on; add nodes")
        actor = ray.remote(num_cpus=1, num_gpus=1 if on_gpu else 0, max_restarts=-1, max_task_retries=LOST_MOST)(Maker)
        actors = [actor.remote(job) for _ in range(count)]
        yield from _spread(ray, actors, items, ahead)
    except RayTaskError as error:
        cause = getattr(error, "cause", None)
        raise cause if isinstance(cause, (SynthError, OSError)) else SynthError(_last_line(error)) from error
    except ActorDiedError as error:
        raise SynthError(
            f"a Ray worker was lost {LOST_MOST + 1} times over one sample (out of memory?), or could not begin: "
            f"{_last_line(error)}; give fewer --workers and run again"
        ) from error
    except RayError as error:
        raise SynthError(f"Ray gave up: {_last_line(error)}; run the same command again to go on") from error
    finally:
        ray.shutdown()


class Maker:
    """The samples of one worker: what an actor is."""

    def __init__(self, job: "Job") -> None:
        from dataclasses import replace

        from pipelines.samples import Worker

        _leave_with_the_node()
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = "1"
        # Ray shows each actor its own GPU alone, as the first
        self.worker = Worker(replace(job, device="cuda:0") if job.device.startswith("cuda") else job)

    def make(self, index: int) -> int:
        """Make and write sample `index`."""
        self.worker.make(index)
        return index


def _spread(ray: Any, actors: Sequence[Any], items: Sequence[int], ahead: int) -> Iterator[int]:
    """Yield items as actors finish them, each with at most `ahead` in hand."""
    left = deque(items)
    whose: dict[Any, Any] = {}
    for _ in range(max(ahead, 1)):
        for actor in actors:
            if left:
                whose[actor.make.remote(left.popleft())] = actor
    while whose:
        done, _ = ray.wait(list(whose), num_returns=1)
        for reference in done:
            actor = whose.pop(reference)
            index = ray.get(reference)
            if left:
                whose[actor.make.remote(left.popleft())] = actor
            yield index


def _begin(ray: Any, address: str | None, workers: int) -> None:
    """Join the cluster at `address`, or begin one here. Errors: ConfigError."""
    import logging

    from pipelines.workers import cores
    from synth.errors import ConfigError

    ours = signal.getsignal(signal.SIGTERM)  # ray takes it, and would end the command with another code
    common: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False, "configure_logging": False}
    if address is None:
        here: dict[str, Any] = {"num_cpus": workers or cores(), "object_store_memory": _STORE_BYTES}
        ray.init(address="local", include_dashboard=False, **here, **common)
    else:
        try:
            ray.init(address=address, **common)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise ConfigError(f"--address {address!r} answers to no Ray ({_last_line(error)}); check it") from error
    with contextlib.suppress(ValueError):  # another thread than the main one: the caller owns the signals
        signal.signal(signal.SIGTERM, ours)


def _leave_with_the_node() -> None:
    """End this actor as soon as its node's daemon is gone: what it writes must not meet the run that comes after."""
    import threading
    import time

    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
