"""Shards of a set as a job array of a SLURM cluster, through submitit. Each job is the command with its --shard."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.generate import Generate

_POLL_S = 2.0
_HOURS = 24


@dataclass(frozen=True)
class Shard:
    """One job: finished samples stay, so that where it is cut off, it is put into the queue as it is."""

    command: "Generate"

    def __call__(self) -> int:
        """Make what is missing of the shard."""
        return self.command.run()

    def checkpoint(self) -> Any:
        """Return what submitit puts into the queue when the job's time is up or its node is wanted."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def run_on_slurm(command: "Generate", shards: int, said: Callable[[int], None]) -> int:
    """Submit `shards` jobs, wait for them and return the largest exit code; an interruption cancels them, and finished
    samples stay.

    `--slurm name=value` are parameters of submitit's executor (slurm_partition, timeout_min, gpus_per_node, mem_gb);
    `cluster=local` runs the jobs on this machine. Logs lie beside the set, in <out>.jobs.
    Errors: ConfigError where submitit is not installed or refuses a parameter; SynthError for a job that failed.
    """
    from synth.errors import ConfigError, SynthError

    try:
        import submitit
        from submitit.core.utils import FailedJobError, UncompletedJobError
    except ImportError as error:
        raise ConfigError(
            "--engine slurm needs submitit, which is not installed; pip install 'synthvol[slurm]', "
            "or write a job script with --shard (docs/batch.md)"
        ) from error
    given = parameters(command.slurm)
    logs = command.out.with_name(f"{command.out.name}.jobs")
    cluster = given.pop("cluster", "slurm")
    if cluster not in ("slurm", "local"):  # submitit's third, debug, asks at a prompt
        raise ConfigError(f"--slurm cluster is {cluster!r}; give slurm, or local for jobs on this machine")
    own: dict[str, Any] = {"name": "synth", "timeout_min": 60 * _HOURS, "cpus_per_task": 1}
    if cluster == "slurm":
        own["slurm_array_parallelism"] = shards
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=str(cluster))
        executor.update_parameters(**{**own, **given})
        with executor.batch():  # one array
            jobs = [executor.submit(Shard(one)) for one in shards_of(command, shards)]
    except (NameError, ValueError, TypeError, AssertionError, RuntimeError, OSError) as error:
        raise ConfigError(f"submitit refuses the jobs ({' '.join(str(error).split())}); mend --slurm") from error
    code = 0
    try:
        _wait(jobs, said)
        for number, job in enumerate(jobs):
            try:
                code = max(code, job.result())
            except (FailedJobError, UncompletedJobError) as error:
                raise SynthError(
                    f"job {job.job_id} (shard {number}/{shards}) failed: {_cause(str(error))}; its log is in {logs}; "
                    "run the same command again to go on"
                ) from error
    except BaseException:
        for job in jobs:
            if not job.done():
                job.cancel()
        raise
    finally:
        said(sum(job.done() for job in jobs))
    return code


def parameters(given: Sequence[str]) -> dict[str, str | int]:
    """Return `name=value` options by name, whole numbers as such. Errors: ConfigError.

    >>> parameters(["slurm_partition=gpu", "timeout_min=240"])
    {'slurm_partition': 'gpu', 'timeout_min': 240}
    """
    from synth.errors import ConfigError

    out: dict[str, str | int] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"[a-z_]+", name) or name in out:
            raise ConfigError(f"--slurm is {pair!r}; write each name=value once, such as slurm_partition=gpu")
        out[name] = int(value) if value.isascii() and value.isdigit() else value
    return out


def shards_of(command: "Generate", shards: int) -> list["Generate"]:
    """Return the commands of the jobs: one process each, on whatever device its node has."""
    out = command.out.resolve()
    return [
        replace(command, out=out, engine="local", workers=1, shard=f"{number}/{shards}", slurm=())
        for number in range(shards)
    ]


def _wait(jobs: Sequence[Any], said: Callable[[int], None]) -> None:
    """Wait until every job is done."""
    while not all(job.done() for job in jobs):
        said(sum(job.done() for job in jobs))
        time.sleep(_POLL_S)


def _cause(said: str) -> str:
    """Return the last line of a job's traceback, without the error's type.

    >>> _cause("Traceback ...\\n  File ...\\nsynth.errors.OutputError: the disk is full")
    'the disk is full'
    """
    lines = [line.strip() for line in said.splitlines() if re.match(r"[\w.]*(Error|Interrupt|Exit)\b", line.strip())]
    last = lines[-1] if lines else " ".join(said.split())[-200:]
    return re.sub(r"^[\w.]+: ", "", last)
