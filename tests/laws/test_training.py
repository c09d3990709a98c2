"""Laws of the loop: train 2N is train N, resume, train N, bit for bit; a kill changes nothing; the best is kept."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from synth.errors import CheckpointError, ConfigError, SynthError
from synth.rng import torch_rng
from synth.training.config import FitConfig
from synth.training.ema import MovingAverage
from synth.training.fit import Task, fit, learning_rate

CONFIG = FitConfig(steps=8, warmup=2, checkpoint_every=4, validate_every=4, log_every=1, learning_rate=1e-2)


def _task(stop_at: int = -1, factor: float = 1.0) -> Task:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.SiLU(), torch.nn.Linear(8, 1))

    def batch(step: int) -> torch.Tensor:
        if step == stop_at:
            raise KeyboardInterrupt
        return torch.randn(16, 4, generator=torch_rng("batch", step))

    def loss(model: torch.nn.Module, data: torch.Tensor, rng: torch.Generator) -> dict[str, torch.Tensor]:
        noise = 0.1 * torch.randn(len(data), generator=rng)
        return {"error": factor * (model(data)[:, 0] - data.sum(dim=1) - noise) ** 2}

    def validate() -> dict[str, float]:
        data = torch.randn(64, 4, generator=torch_rng("holdout"))
        return {"score": float(((module(data)[:, 0] - data.sum(dim=1)) ** 2).mean())}

    return Task("toy", module, loss, batch, validate)


def _files(folder: Path) -> dict[str, bytes]:
    names = [f"{part}/{name}.safetensors" for part in ("last", "best") for name in ("weights", "ema", "optimizer")]
    return {name: (folder / name).read_bytes() for name in [*names, "last/state.json", "train.jsonl", "done.json"]}


@pytest.mark.parametrize("change", [{}, {"accumulation": 2}, {"precision": "bf16"}, {"precision": "fp16"}])
def test_resumed_equals_uninterrupted(tmp_path: Path, change: dict[str, object]) -> None:
    config = replace(CONFIG, **change)  # pyright: ignore[reportArgumentType]
    fit(_task(), config, tmp_path / "whole", seed=0)
    with pytest.raises(KeyboardInterrupt):
        fit(_task(stop_at=6 * config.accumulation), config, tmp_path / "cut", seed=0)
    fit(_task(), config, tmp_path / "cut", seed=0)
    assert _files(tmp_path / "whole") == _files(tmp_path / "cut")


def test_kill_nine_changes_nothing(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import torch; torch.set_num_threads(1)\n"
        "from pathlib import Path; from dataclasses import replace\n"
        "from tests.laws.test_training import _task, CONFIG; from synth.training.fit import fit\n"
        "fit(_task(), replace(CONFIG, steps=300, checkpoint_every=5), Path(sys.argv[2]), seed=0)"
    )
    root = str(Path(__file__).parents[2])
    config = replace(CONFIG, steps=300, checkpoint_every=5)
    fit(_task(), config, tmp_path / "whole", seed=0)
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", code, root, str(tmp_path / "cut")], cwd=root)
        first = time.monotonic()
        while not (tmp_path / "cut" / "last").is_dir() and time.monotonic() - first < 60:
            time.sleep(0.05)
        time.sleep(0.3)
        child.kill()
        child.wait()
    fit(_task(), config, tmp_path / "cut", seed=0)
    assert _files(tmp_path / "whole") == _files(tmp_path / "cut")


def test_best_is_the_lowest_score_and_ends_in_the_module(tmp_path: Path) -> None:
    task = _task()
    scores = iter([{"score": 1.0}, {"score": 3.0}])
    fit(replace(task, validate=lambda: next(scores)), CONFIG, tmp_path, seed=0)
    assert json.loads((tmp_path / "best" / "state.json").read_text())["step"] == 4
    from safetensors.torch import load_file

    kept = load_file(tmp_path / "best" / "ema.safetensors")
    assert all(torch.equal(p, kept[name]) for name, p in task.module.named_parameters())


def test_average_follows_its_formula() -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    average = MovingAverage(module, 0.5)
    before = float(average.tensors["weight"])
    with torch.no_grad():
        module.weight.add_(1.0)
    average.update(module, 100)
    assert float(average.tensors["weight"]) == pytest.approx(before + 0.5)


def test_rate_warms_up_and_falls() -> None:
    rates = [learning_rate(CONFIG, step) for step in range(CONFIG.steps)]
    assert rates[0] == pytest.approx(0.005) and max(rates) == pytest.approx(0.01)
    assert rates[-1] < rates[2] and learning_rate(CONFIG, CONFIG.steps) == pytest.approx(0.01 * CONFIG.final)


def test_faults_speak(tmp_path: Path) -> None:
    with pytest.raises(SynthError, match="loss is nan"):
        fit(_task(factor=float("nan")), CONFIG, tmp_path / "nan", seed=0)
    fit(_task(), CONFIG, tmp_path / "run", seed=0)
    with pytest.raises(ConfigError, match="learning_rate"):
        fit(_task(), replace(CONFIG, learning_rate=0.5), tmp_path / "run", seed=0)
    (tmp_path / "run" / "done.json").unlink()
    (tmp_path / "run" / "last" / "weights.safetensors").write_bytes(b"rubbish")
    with pytest.raises(CheckpointError, match="damaged"):
        fit(_task(), CONFIG, tmp_path / "run", seed=0)
