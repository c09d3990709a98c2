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
