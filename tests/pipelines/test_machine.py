"""What this machine has: a container or a job of a cluster may use less memory than is built in."""

from pathlib import Path

import pytest

from pipelines import machine


def group(place: Path, name: str, limit: str) -> None:
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_text(limit + "\n")


def test_every_group_above_limits_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group(tmp_path, "memory.max", "max")
    group(tmp_path / "job", "memory.max", "3000000000")
    group(tmp_path / "job" / "step", "memory.max", "max")
    (tmp_path / "own").write_text("0::/job/step\n")
    assert machine.group_limits(tmp_path, tmp_path / "own") == [3_000_000_000]
    monkeypatch.setattr(machine, "_GROUPS", tmp_path)
    monkeypatch.setattr(machine, "_OWN_GROUPS", tmp_path / "own")
    assert machine.memory_gb() == 3.0


def test_limits_of_version_1_and_of_containers(tmp_path: Path) -> None:
    """Without a limit, version 1 says a number beyond any machine."""
    group(tmp_path / "memory", "memory.limit_in_bytes", "9223372036854771712")
    group(tmp_path / "memory" / "box", "memory.limit_in_bytes", "2000000000")
    (tmp_path / "own").write_text("3:cpu,cpuacct:/other\n2:memory:/box\n")
    assert sorted(machine.group_limits(tmp_path, tmp_path / "own")) == [2_000_000_000, 9223372036854771712]
    assert machine.group_limits(tmp_path, tmp_path / "absent") == [9223372036854771712]


def test_without_groups_the_machines_memory_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_GROUPS", tmp_path / "absent")
    assert machine.group_limits(tmp_path / "absent", tmp_path / "absent") == []
    assert machine.memory_gb() > 0.1
