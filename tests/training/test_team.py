"""Several processes are one process with their batches accumulated: the loop, and `train` under a launcher."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from pipelines.cli import main
from synth.data.prepared import Prepared
from synth.errors import ConfigError
from synth.recipe import Recipe
from synth.training import team
from synth.training.fit import fit
from synth.training.plan import shared
from synth.training.team import Team
from tests.training import tiny

ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-6
"""Of sums of two float32 gradients in either order; with two processes there is one order."""


def launched(processes: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a module in `processes` processes on this machine, gloo between them."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def require_equal(one: Path, two: Path) -> None:
    """Assert that two folders hold the same files: tensors within the tolerance, figures of logs too."""
    left, right = tiny.files(one), tiny.files(two)
    assert left.keys() == right.keys()
    for name in left:
        if name.endswith(".safetensors"):
            a, b = load_file(one / name), load_file(two / name)
            for key in a:
                torch.testing.assert_close(a[key].float(), b[key].float(), rtol=TOLERANCE, atol=TOLERANCE)
        elif name.endswith("train.jsonl"):
            for a, b in zip(left[name].splitlines(), right[name].splitlines(), strict=True):
                assert json.loads(a) == pytest.approx(json.loads(b), rel=1e-5)
        elif name.endswith("config.json"):
            assert left[name] == right[name]


@pytest.mark.slow
def test_two_processes_are_one_with_two_batches_a_step(tmp_path: Path) -> None:
    done = launched(2, "-m", "tests.training.teamwork", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    fit(tiny.task(), tiny.config(accumulation=2), tmp_path / "one", seed=1)
    require_equal(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_processes_that_start_apart_are_given_the_leaders_weights(tmp_path: Path) -> None:
    done = launched(2, "-m", "tests.training.teamwork", str(tmp_path / "two"), "0", "apart")
    assert done.returncode == 0, done.stderr
    fit(tiny.task(), tiny.config(accumulation=2), tmp_path / "one", seed=1)
    require_equal(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_a_run_stopped_in_one_number_of_processes_goes_on_in_another(tmp_path: Path) -> None:
    stopped = launched(2, "-m", "tests.training.teamwork", str(tmp_path / "two"), "5")
    assert stopped.returncode != 0
    assert json.loads((tmp_path / "two" / "last" / "state.json").read_text())["step"] == 5
    fit(tiny.task(), tiny.config(accumulation=2), tmp_path / "two", seed=1)
    fit(tiny.task(), tiny.config(accumulation=2), tmp_path / "one", seed=1)
    require_equal(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_train_in_two_processes_is_train_with_two_batches_a_step(
    prepared: Prepared, model: Path, tmp_path: Path
) -> None:
    line = [str(prepared.folder.parent / "tiny.yaml"), "--data", str(prepared.folder)]
    done = launched(2, "-m", "pipelines", "train", *line, "--out", str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("2 processes share each step") == 1 and done.stdout.count("model in") == 1
    stages = [f"{part}.{stage}" for part in ("image", "mask") for stage in ("codec_training", "training")]
    more = [word for stage in stages for word in ("--set", f"{stage}.fit.accumulation=2")]
    assert main(["train", *line, "--out", str(tmp_path / "one"), *more]) == 0
    require_equal(tmp_path / "one", tmp_path / "two")


def test_more_processes_than_gpus_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """As accelerate places the third of three processes on a machine of two GPUs: on the first again."""
    third = SimpleNamespace(process_index=2, local_process_index=2, num_processes=3, device=torch.device("cuda:0"))
    monkeypatch.setattr(team, "accelerator", lambda **_: third)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError, match="more processes on this machine than its 2 GPUs; start one for each"):
        team.team_of_launch(cpu=False)
    assert team.team_of_launch(cpu=True)[0] == Team(rank=2, size=3)


def test_batches_that_cannot_be_shared_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="fit.accumulation is 3, 2 processes share its batches; give a multiple of 2"):
        fit(tiny.task(), tiny.config(accumulation=3), tmp_path / "run", seed=0, team=Team(rank=1, size=2))
    assert not (tmp_path / "run").exists()


def test_shares_are_dealt_in_turn_and_complete() -> None:
    for size in (1, 2, 3):
        shares = [list(Team(rank=rank, size=size).share(range(7))) for rank in range(size)]
        assert sorted(item for share in shares for item in share) == list(range(7))
    recipe = shared(Recipe(name="any"), 3)
    assert recipe.image.training.fit.accumulation == recipe.image.codec_training.fit.accumulation == 3
    assert shared(recipe, 2).image.training.fit.accumulation == 4 and shared(recipe, 1) == recipe


def test_python_m_pipelines_is_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stdout.startswith("usage: synth VERB")
