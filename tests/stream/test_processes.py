"""The producer as a process: its samples are `synth generate`'s, it ends with its training, and its death is told."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import synth
from synth.data.prepared import Prepared
from synth.errors import ConfigError, OutputError, SynthError
from synth.stream import Stream, buffer
from synth.stream.buffer import Buffer, Wanted, alive, publish
from synth.stream.producer import Producer, State, Work, run

ROOT = Path(__file__).parents[2]
Make = Callable[..., Stream]


def _open(tiny: Path, prepared: Prepared, folder: Path, **options: object) -> Stream:
    settings = dict(real=prepared, ratio=1.0, reuse=2, depth=2, batch=2, epoch_steps=2, buffer=folder)
    return Stream(tiny, **{**settings, **options})  # pyright: ignore[reportArgumentType]


def _pid(folder: Path) -> int:
    return json.loads((folder / "producer-0.json").read_text())["pid"]


def _gone(pid: int) -> bool:
    until = time.monotonic() + 20
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return not alive(pid)


def test_samples_are_those_of_generate(tiny: Path, prepared: Prepared, tmp_path: Path) -> None:
    with _open(tiny, prepared, tmp_path / "buffer", seed=3) as stream:
        told: list[tuple[int, int]] = []
        stream.wait(told=lambda done, count: told.append((done, count)))
        assert told == [(1, 2), (2, 2)]
        items = list(stream)
        pid = _pid(tmp_path / "buffer")
    assert _gone(pid)
    state = json.loads((tmp_path / "buffer" / "producer-0.json").read_text())
    assert state["threads"] == 1 and state["device"] == "cpu"
    torch.set_num_threads(1)
    generator = synth.load(tiny)
    for item in items:
        number = int(item["case"][4:])
        sample = next(generator.generate([synth.Condition()], seeds=[synth.Seed(3, number)]))
        expected = stream.space.place(sample.image, sample.mask)
        assert item["image"].numpy().tobytes() == expected.image.tobytes()
        assert item["mask"].numpy().tobytes() == expected.mask.tobytes()


def test_real_masks_are_followed_in_turn(make: Make, tiny: Path, prepared: Prepared) -> None:
    stream = make(masks="real")
    producer = Producer(stream.store, synth.load(tiny).with_sampling(synth.Sampling(steps=1)))
    cases = prepared.split("train")
    seen = {producer.make(number, 0).mask.tobytes() for number in range(len(cases))}
    assert seen == {prepared.mask(case).tobytes() for case in cases}


def test_a_producer_that_died_is_told_and_a_new_stream_goes_on(tiny: Path, prepared: Prepared, tmp_path: Path) -> None:
    stream = _open(tiny, prepared, tmp_path / "buffer")
    stream.wait()
    os.kill(_pid(tmp_path / "buffer"), signal.SIGKILL)
    made = sorted(stream.store.have())
    stream.store.path_of(1, 0).unlink()
    for loader in (stream, stream.loader(1)):
        with pytest.raises(
            SynthError, match=r"^the producer of .* died \(process \d+\); see .*producer-0.log"
        ) as caught:
            list(loader)
        assert "\n" not in str(caught.value)
    stream.close()
    with _open(tiny, prepared, tmp_path / "buffer") as again:
        assert len(list(again)) == 4
    assert set(made) <= again.store.have()


SCRIPT = """
import sys, torch
from pathlib import Path
import synth
from tests.stream.test_processes import _pid
if __name__ == "__main__":
    model, data, folder, ending = sys.argv[1:]
    stream = synth.Stream(model, real=data, ratio=1.0, reuse=2, depth=2, batch=2, epoch_steps=50, buffer=folder)
    batches = iter(stream.loader(1))
    next(batches)
    print(_pid(Path(folder)), flush=True)
    if ending == "raise":
        raise ValueError("mine")
    if ending == "hang":
        import time
        time.sleep(600)
"""


@pytest.mark.parametrize(("ending", "code"), [("end", 0), ("raise", 1), ("hang", -9)])
def test_it_ends_with_its_training(tiny: Path, prepared: Prepared, tmp_path: Path, ending: str, code: int) -> None:
    """In the middle of an epoch, workers running, nothing closed: no abort, no orphan, no word of a thread."""
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    line = [sys.executable, str(script), str(tiny), str(prepared.folder), str(tmp_path / "buffer"), ending]
    child = subprocess.Popen(
        line,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    said = child.stdout.readline()
    if ending == "hang":
        child.kill()
    _, errors = child.communicate(timeout=120)
    assert child.returncode == code, errors
    assert "terminate called" not in errors and "Exception ignored" not in errors
    assert ("ValueError: mine" in errors) == (ending == "raise")
    assert _gone(int(said))


def test_a_full_disk_is_one_line(make: Make, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = make()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(buffer.os, "fsync", full)
    with pytest.raises(OutputError, match="cannot be written .the disk is full.; free room or give another buffer"):
        publish(stream.store.folder / "any", b"x")
    assert run(str(stream.store.folder), tuple(Work(str(tiny), _sha(stream), "cpu")), parent=os.getppid()) == 2
    assert not [path for path in stream.store.folder.rglob("*.partial")]
    monkeypatch.undo()
    stream.leads = True
    with pytest.raises(
        SynthError, match="failed: .*the disk is full.*see .*producer-0.log, then start the training again"
    ):
        next(item for item in stream if item["synthetic"])


def _sha(stream: Stream) -> str:
    return stream.store.request()["model"]["sha256"]


def test_a_changed_model_is_refused_by_the_producer(make: Make, tiny: Path) -> None:
    stream = make()
    with pytest.raises(ConfigError, match="was changed: its weights or recipe"):
        Producer.open(stream.store, Work(str(tiny), "0" * 64, "cpu"))


def test_a_silent_producer_is_told(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = make()
    monkeypatch.setattr(buffer, "SILENT_S", 0.5)
    with pytest.raises(SynthError, match="never came for 0 s|never came for 1 s"):
        stream.store.wait_for(0, 0)
    state = State(stream.store, Work("m", "s", "cpu"), os.getpid())
    state.say("working")
    with pytest.raises(SynthError, match="is silent for"):
        stream.store.wait_for(0, 0)
    monkeypatch.undo()
    state.say("failed", error="the reason")
    with pytest.raises(SynthError, match="failed: the reason; see"):
        stream.store.wait_for(0, 0)


def test_parts_share_the_samples_and_doubles_do_no_harm(make: Make, tiny: Path) -> None:
    stream = make()
    generator = synth.load(tiny).with_sampling(synth.Sampling(steps=1))
    wanted = stream.store.wanted()
    assert wanted is not None and wanted.first == 0
    whole = len(wanted.groups)
    one = Producer(stream.store, generator, part=1, parts=2)
    while one.once():
        pass
    assert sorted(int(name[:8]) % 2 for name in stream.store.have()) == [1] * (whole // 2)
    before = {name: stream.store.path_of(int(name[:8]), 0).read_bytes() for name in stream.store.have()}
    both = Producer(stream.store, generator)
    while both.once():
        pass
    assert len(stream.store.have()) == whole
    for name in before:
        stream.store.path_of(int(name[:8]), 0).unlink()
    while both.once():
        pass
    assert before == {name: stream.store.path_of(int(name[:8]), 0).read_bytes() for name in before}


def test_drafts_of_the_dead_are_swept_and_damage_is_told(make: Make, tiny: Path, tmp_path: Path) -> None:
    import socket

    from tests.stream.conftest import fill

    stream = make()
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    draft = stream.store.folder / "samples" / f".x.safetensors.{socket.gethostname()}.{dead.pid}.partial"
    own = draft.with_name(f".y.safetensors.{socket.gethostname()}.{os.getpid()}.partial")
    draft.parent.mkdir()
    draft.write_bytes(b"half")
    own.write_bytes(b"half")
    fill(stream, tiny)
    assert not draft.exists() and own.exists()
    stream.store.path_of(0, 0).write_bytes(b"half")
    with pytest.raises(SynthError, match="cannot be read .* remove it: it is made again"):
        stream.store.wait_for(0, 0)
    store = Buffer(tmp_path / "none")
    assert store.wanted() is None and store.have() == set()
    store.want(Wanted(3, (0, 1), 7))
    assert store.wanted() == Wanted(3, (0, 1), 7)


def _ranks(processes: int, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    line = [*command, "-m", "tests.stream.loop", *words]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_two_ranks_killed_and_resumed_see_what_one_process_sees(tiny: Path, prepared: Prepared, tmp_path: Path) -> None:
    words = [str(tiny), str(prepared.folder), str(tmp_path / "buffer"), str(tmp_path / "out")]
    assert _ranks(2, *words, "--kill", "7").returncode != 0
    done = _ranks(2, *words, "--resume")
    assert done.returncode == 0, done.stderr
    line = [sys.executable, "-m", "tests.stream.loop", str(tiny), str(prepared.folder)]
    alone = [*line, str(tmp_path / "alone"), str(tmp_path / "one"), "--workers", "0"]
    single = subprocess.run(alone, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert single.returncode == 0, single.stderr
    whole = [line.split() for line in (tmp_path / "one" / "rank0.txt").read_text().splitlines()]
    parts = [(tmp_path / "out" / f"rank{rank}.txt").read_text().splitlines() for rank in range(2)]
    assert len(whole) == 10 and all(len(part) == 10 for part in parts)
    for (epoch, step, *items), *halves in zip(whole, *([line.split() for line in part] for part in parts)):
        assert [half[:2] for half in halves] == [[epoch, step]] * 2
        assert halves[0][2:] + halves[1][2:] == items
