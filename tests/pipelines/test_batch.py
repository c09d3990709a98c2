"""A night's batch: engines and their bytes, the dry run, and faults that end in one line and lose nothing."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipelines.cli import main
from pipelines.workers import run_all
from tests.pipelines.test_plan import content, generate, refused

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a set of four by one process."""
    out = tmp_path_factory.mktemp("batch") / "whole"
    assert generate(model, out, "--count", 4) == 0
    return content(out)


@pytest.mark.parametrize("batch", [1, 3])
def test_samples_in_flight_change_no_byte(batch: int, model: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    assert generate(model, tmp_path / "out", "--count", 4, "--workers", 2, "--batch", batch) == 0
    assert content(tmp_path / "out") == whole


def test_a_window_of_items_is_handed_out(tmp_path: Path) -> None:
    """However many items there are, few are in the queue; they come back in order."""
    taken: list[int] = []

    class Counted(list[int]):
        def __iter__(self) -> Any:
            for item in super().__iter__():
                taken.append(item)
                yield item

    results = run_all(abs, Counted(range(-9, 0)), workers=2, start=_nothing, job=None, ahead=3)
    assert next(results) == 9 and len(taken) == 3
    assert list(results) == [8, 7, 6, 5, 4, 3, 2, 1]


def test_an_interrupt_ends_all_but_what_was_begun(tmp_path: Path) -> None:
    """Handed out are hundreds of items; after an interrupt none of them is begun any more."""
    results = run_all(_touch, [tmp_path / str(number) for number in range(100)], workers=2, start=_nothing, job=None)
    next(results)
    with pytest.raises(KeyboardInterrupt):
        results.throw(KeyboardInterrupt)  # pyright: ignore[reportAttributeAccessIssue] - a generator
    time.sleep(3)  # all of them would be done by now
    assert len(list(tmp_path.iterdir())) < 20


def _touch(path: Path) -> None:
    time.sleep(0.05)
    path.touch()


def _nothing(job: object) -> None:
    del job


@pytest.mark.slow
def test_ray_gives_the_same_bytes_whoever_dies(model: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    """A Ray of this machine, one of whose actors is killed as it works: its sample is made anew."""
    pytest.importorskip("ray")
    out = tmp_path / "out"
    line = [sys.executable, "-m", "pipelines.cli", "generate", str(model), "--out", str(out), "--count", "4"]
    child = subprocess.Popen(
        [*line, "--engine", "ray", "--workers", "1"], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        _wait(lambda: any(out.glob("records/*.json")) or child.poll() is not None, seconds=300)
        actors = [pid for pid in _below(child.pid) if "Maker" in _title(pid)]
        for pid in actors:
            os.kill(pid, signal.SIGKILL)
        _, said = child.communicate(timeout=300)
    finally:
        child.kill()
    assert child.returncode == 0, said.decode()
    assert actors, "no actor was there to be killed"
    assert content(out) == whole


def test_a_missing_engine_is_told_with_its_mend(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module, engine, extra in (("ray", "ray", "synthvol[ray]"), ("submitit", "slurm", "synthvol[slurm]")):
        monkeypatch.setitem(sys.modules, module, None)
        assert generate(model, tmp_path / "out", "--count", 2, "--engine", engine) == 2
        assert extra in refused(capsys)
    for options, words in (
        (["--address", "auto"], "--address is for --engine ray"),
        (["--slurm", "timeout_min=5"], "--slurm is for --engine slurm"),
        (["--engine", "slurm", "--shard", "0/2"], "makes the shards itself"),
        (["--engine", "dask"], "engine"),
    ):
        assert generate(model, tmp_path / "out", "--count", 2, *options) == 2
        assert words in refused(capsys)


def test_an_address_without_ray_is_told(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stand-in for ray, whose cluster does not answer."""
    ray, errors = ModuleType("ray"), ModuleType("ray.exceptions")

    def init(**options: object) -> None:
        raise ConnectionError(f"no cluster at {options['address']}\nTry again")

    ray.init, ray.shutdown, ray.exceptions = init, lambda: None, errors  # pyright: ignore[reportAttributeAccessIssue]
    for name in ("ActorDiedError", "RayError", "RayTaskError"):
        setattr(errors, name, type(name, (Exception,), {}))
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.exceptions", errors)
    options = ["--engine", "ray", "--address", "127.0.0.1:6379"]
    assert generate(model, tmp_path / "out", "--count", 2, *options) == 2
    assert "--address '127.0.0.1:6379' answers to no Ray (Try again); check it" in refused(capsys)


def test_a_job_array_makes_the_set(model: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    """submitit's own executor of this machine stands in for SLURM: jobs are processes of their own."""
    pytest.importorskip("submitit")
    options = ["--engine", "slurm", "--workers", 2, "--slurm", "cluster=local", "--slurm", "timeout_min=10"]
    assert generate(model, tmp_path / "out", "--count", 4, *options) == 0
    assert content(tmp_path / "out") == whole
    assert list((tmp_path / "out.jobs").glob("*.out")), "logs lie beside the set"


def test_a_job_that_fails_and_wrong_parameters_are_told(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    jobs = ["--engine", "slurm", "--workers", 1, "--slurm", "cluster=local"]
    assert generate(model, tmp_path / "out", "--count", 1, *jobs) == 2
    told = refused(capsys)
    assert "(shard 0/1) failed: " in told and "is not empty; give another --out; its log is in" in told
    for wrong, words in (
        ("nodes", "write each name=value once"),
        ("cluster=slurm", "write each name=value once"),
        ("colour=red", "submitit refuses the jobs"),
    ):
        assert generate(model, tmp_path / "other", "--count", 1, *jobs, "--slurm", wrong) == 2
        assert words in refused(capsys)
    assert generate(model, tmp_path / "other", "--count", 1, *jobs[:-1], "cluster=debug") == 2
    assert "give slurm, or local" in refused(capsys)


def test_a_requeued_job_is_the_same_shard(model: Path, tmp_path: Path) -> None:
    submitit = pytest.importorskip("submitit")
    from pipelines.generate import Generate
    from pipelines.on_slurm import Shard, shards_of

    command = Generate(model=str(model), out=tmp_path / "out", count=4, engine="slurm", workers=2)
    first, second = map(Shard, shards_of(command, 2))
    again = second.checkpoint()
    assert isinstance(again, submitit.helpers.DelayedSubmission) and again.function == second
    assert [first.command.shard, second.command.shard] == ["0/2", "1/2"] and first.command.engine == "local"


def test_usr1_ends_a_run_that_the_job_script_can_queue_again(
    model: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    line = [sys.executable, "-m", "pipelines.cli", "generate", str(model), "--out", str(out), "--count", "200"]
    child = subprocess.Popen([*line, "--workers", "2"], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        _wait(lambda: any(out.glob("records/*.json")) or child.poll() is not None)
        child.send_signal(signal.SIGUSR1)
        _, said = child.communicate(timeout=120)
    finally:
        child.kill()
    assert child.returncode == 130 and b"run the same command again to go on" in said
    kept = {name: data for name, data in content(out).items() if re.search(r"syn_0000[0-3]", name)}
    assert kept and all(whole[name] == data for name, data in kept.items())


def test_a_dry_run_says_what_it_takes_and_writes_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    capsys.readouterr()
    assert generate(model, out, "--count", 1000, "--dry-run") == 0
    told = capsys.readouterr().out
    assert not out.exists() and not list(tmp_path.iterdir())
    said = re.search(r"1000 samples are to be made, one took ([\d.]+) s", told)
    disk = re.search(r"disk +([\d.]+) (kB|MB) in", told)
    assert said and disk and "with 1 process of one thread" in told and re.search(r"memory +[\d.]+ GB, of", told)
    assert generate(model, out, "--count", 2) == 0
    real = sum(len(data) for name, data in content(out).items() if name.startswith(("images", "labels", "records")))
    real += len(content(out)["manifest.jsonl"])
    assert float(disk[1]) * {"kB": 1e3, "MB": 1e6}[disk[2]] == pytest.approx(real / 2 * 1000, rel=0.1)
    before = content(out)
    assert generate(model, out, "--count", 2, "--dry-run") == 0 and "nothing is left" in capsys.readouterr().out
    assert (
        generate(model, out, "--count", 3, "--dry-run") == 0 and "1 samples are to be made" in capsys.readouterr().out
    )
    assert generate(model, out, "--count", 3, "--seed", 5, "--dry-run") == 2
    assert content(out) == before
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10, 10, 1000))  # pyright: ignore
    capsys.readouterr()
    assert generate(model, tmp_path / "other", "--count", 3, "--dry-run") == 2
    assert "has 1.0 kB free" in refused(capsys)


def test_memory_that_is_short_is_told(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipelines import machine
    from synth.training import timing

    monkeypatch.setattr(machine, "memory_gb", lambda device: 8.0)
    monkeypatch.setattr(timing, "peak_bytes", lambda device: 3_000_000_000)
    assert (
        main(["generate", str(model), "--out", str(tmp_path / "o"), "--count", "9", "--workers", "4", "--dry-run"]) == 2
    )
    assert "4 workers take 12.0 GB, 8.0 are here; give --workers 2" in refused(capsys)


FAULTS: dict[str, tuple[int, str]] = {
    "a full disk": (errno.ENOSPC, "the disk is full"),
    "a quota": (errno.EDQUOT, "quota"),
    "a disk that turned read-only": (errno.EROFS, "Read-only file system"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_disk_that_takes_no_more_ends_in_one_line_and_loses_nothing(
    name: str,
    model: Path,
    whole: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    number, words = FAULTS[name]
    out, replace = tmp_path / "out", os.replace

    def refuse(source: Any, target: Any) -> None:
        if "syn_00002" in str(target):
            raise OSError(number, os.strerror(number))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    assert generate(model, out, "--count", 4) == 2
    assert words.lower() in refused(capsys).lower()
    kept = content(out)
    assert len([file for file in kept if file.startswith("records/")]) == 2 and not list(out.glob("*/.*"))
    monkeypatch.setattr(os, "replace", replace)
    assert generate(model, out, "--count", 4) == 0 and content(out) == whole


def _damage(path: str, data: bytes) -> Callable[[Path], object]:
    return lambda out: (out / path).write_bytes(data)


HALF: dict[str, Callable[[Path], object]] = {
    "an empty record": _damage("records/syn_00001.json", b""),
    "half a record": _damage("records/syn_00001.json", b'{"case": "syn_0'),
    "another sample's record": _damage("records/syn_00001.json", b'{"case": "syn_00003", "index": 3}'),
    "an empty image": _damage("imagesTr/syn_00001_0000.nii.gz", b""),
    "no mask": lambda out: (out / "labelsTr/syn_00001.nii.gz").unlink(),
    "half a manifest": _damage("manifest.jsonl", b'{"case": '),
}


@pytest.mark.parametrize("name", HALF)
def test_what_a_cut_of_power_left_half_is_made_again(
    name: str, model: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for path, data in whole.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(data)
    HALF[name](out)
    assert generate(model, out, "--count", 4) == 0 and content(out) == whole


def test_a_broken_request_and_another_one_are_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(model, tmp_path / "out", "--count", 1) == 0
    before = content(tmp_path / "out")
    assert generate(model, tmp_path / "out", "--count", 1, "--spread", "kind") == 2
    assert "was begun with spread = None, now it is kind" in refused(capsys)
    assert content(tmp_path / "out") == before
    (tmp_path / "out" / "request.json").write_text("{")
    assert generate(model, tmp_path / "out", "--count", 1) == 2
    assert "request.json line 1 is broken" in refused(capsys)


def test_two_commands_do_not_make_one_shard_at_once(
    model: Path, whole: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("fcntl")
    out = tmp_path / "out"
    assert generate(model, out, "--count", 1) == 0
    holds = "import fcntl, sys; f = open(sys.argv[1], 'r+b'); fcntl.lockf(f, fcntl.LOCK_EX, 1, 0); print(1, flush=True)"
    line = [sys.executable, "-c", f"{holds}; sys.stdin.read()", str(out / "request.json")]
    other = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert other.stdin is not None and other.stdout is not None
    try:
        assert other.stdout.readline() == b"1\n"
        assert generate(model, out, "--count", 4) == 2
        assert f"another process is making shard 0/1 of {out}" in refused(capsys)
        assert generate(model, out, "--count", 4, "--shard", "1/2") == 0
    finally:
        other.communicate()
    assert generate(model, out, "--count", 4) == 0 and content(out) == whole


def test_samples_of_several_environments_are_told(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(model, tmp_path / "out", "--count", 2) == 0
    assert "environments" not in capsys.readouterr().err
    record = tmp_path / "out" / "records" / "syn_00001.json"
    row = json.loads(record.read_text())
    record.write_text(json.dumps({**row, "environment": {**row["environment"], "torch": "1.0"}}))
    assert generate(model, tmp_path / "out", "--count", 3) == 0
    assert "made in 2 numeric environments" in capsys.readouterr().err


def test_sets_of_before_plans_go_on(model: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert generate(model, out, "--count", 2) == 0
    request = json.loads((out / "request.json").read_text())
    del request["plan"]
    (out / "request.json").write_text(json.dumps(request))
    assert generate(model, out, "--count", 4) == 0
    assert {**content(out), "request.json": b""} == {**whole, "request.json": b""}


def _below(pid: int) -> list[int]:
    """Return every process below one."""
    out, left = [], [pid]
    while left:
        try:
            one = left.pop()
            children = [
                int(p) for task in Path(f"/proc/{one}/task").iterdir() for p in (task / "children").read_text().split()
            ]
        except OSError:
            continue
        out += children
        left += children
    return out


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _wait(until: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
