"""Kill -9 before any file operation, or of the parent alone: what is completed has the uninterrupted run's bytes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipelines.cli import run
from pipelines.workers import alone
from synth.data.prepared import Prepared
from tests.laws.dying import files

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("act", "step"), [("generate", 1), ("extend", 1), ("fit", 1), ("train", 23)])
def test_killed_before_a_file_operation(act: str, step: int, model: Path, prepared: Prepared, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "model")
    shutil.copytree(prepared.folder, tmp_path / "data")
    shutil.copy(prepared.folder.parent / "tiny.yaml", tmp_path)
    command = [sys.executable, "-m", "tests.laws.dying", act, str(tmp_path), str(step)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["differs"] == {} and found["killed"] >= 8


def test_workers_end_with_a_killed_parent(model: Path, tmp_path: Path) -> None:
    line = [str(model), "--count", "40", "--workers", "2", "--out"]
    command = [sys.executable, "-m", "pipelines.cli", "generate", *line, str(tmp_path / "cut")]
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    _wait(lambda: any(tmp_path.glob("cut/records/*.json")))
    os.kill(child.pid, signal.SIGKILL)  # the parent alone
    child.wait()
    _wait(lambda: not _alive(child.pid))
    assert len(list(tmp_path.glob("cut/records/*.json"))) < 40, "the set was complete before the kill"
    assert run("generate", [*line, str(tmp_path / "cut")]) == 0
    assert run("generate", [*line, str(tmp_path / "whole")]) == 0
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="workers are found in /proc")
@pytest.mark.parametrize("verb", ["generate", "bench"])
def test_a_killed_worker_ends_the_command_in_one_line(verb: str, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut"
    line = [verb, str(model), "--count", "60", "--workers", "2", *(["--out", str(out)] if verb == "generate" else [])]
    begun = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", *line], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        # bench waits in its workers until all are ready, which one that is killed before it is never is
        _wait(
            lambda: sum(map(_deaf, _workers(begun.pid))) == 2 and (verb == "bench" or any(out.glob("records/*.json")))
        )
        os.kill(_workers(begun.pid)[0], signal.SIGKILL)
        _, said = begun.communicate(timeout=30)
    finally:
        begun.kill()
    told = [row for row in said.decode().splitlines() if row.startswith("synth: ") or "Traceback" in row]
    assert begun.returncode == 2 and len(told) == 1 and "a worker process was ended from outside" in told[0]
    if verb == "generate":
        assert len(list(out.glob("records/*.json"))) < 60, "the set was complete before the kill"
        assert run(verb, line[1:]) == 0 and len(list(out.glob("imagesTr/*"))) == 60


def test_shards_write_common_files_in_turn(tmp_path: Path) -> None:
    held, order = threading.Event(), []

    def second() -> None:
        held.wait()
        with alone(tmp_path):
            order.append("second")

    other = threading.Thread(target=second)
    other.start()
    with alone(tmp_path):
        held.set()
        time.sleep(0.2)
        order.append("first")
    other.join()
    assert order == ["first", "second"]


def _workers(parent: int) -> list[int]:
    """Return the spawned workers of a process; what else it begins watches its semaphores."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in children if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text()]


def _deaf(pid: int) -> bool:
    """True where a process ignores SIGTERM, as workers do once they have begun."""
    status = dict(row.split(":", 1) for row in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigIgn"], 16) >> (signal.SIGTERM - 1) & 1)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _wait(until, seconds: float = 60) -> None:  # noqa: ANN001 - a callable
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
