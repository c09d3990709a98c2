"""Average, schedule, checkpoints and cost: each against its formula or its promise."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from synth.errors import CheckpointError, ConfigError
from synth.training.config import FitConfig
from synth.training.ema import MovingAverage
from synth.training.schedule import learning_rate
from synth.training.state import has_state, load_state, mend_folder, save_state
from synth.training.timing import time_steps
from tests.training import tiny


def test_average_follows_its_formula():
    module = nn.Linear(3, 2)
    average = MovingAverage(module, 0.7)
    expected = {name: p.detach().double() for name, p in module.named_parameters()}
    for step in range(40):
        with torch.no_grad():
            for number, parameter in enumerate(module.parameters()):
                parameter.add_(math.sin(step + number))
        average.update(module, step)
        decay = min(0.7, (1 + step) / (10 + step))
        for name, parameter in module.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * parameter.detach().double()
    for name, tensor in average.tensors.items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)


def test_average_with_decay_zero_is_the_weights():
    module = tiny.network()
    average = MovingAverage(module, 0.0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(3.7)
    average.update(module, 100)
    assert all(torch.equal(average.tensors[name], p) for name, p in module.named_parameters())


def test_swapping_twice_changes_nothing():
    module = tiny.network()
    average = MovingAverage(module, 0.9)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1.0)
    weights = [p.detach().clone() for p in module.parameters()]
    means = [t.clone() for t in average.tensors.values()]
    average.swap(module)
    assert all(torch.equal(p, m) for p, m in zip(module.parameters(), means, strict=True))
    average.swap(module)
    assert all(torch.equal(p, w) for p, w in zip(module.parameters(), weights, strict=True))
    assert all(torch.equal(t, m) for t, m in zip(average.tensors.values(), means, strict=True))


def test_rate_warms_up_and_falls_as_a_cosine():
    config = FitConfig(steps=1100, warmup=100, learning_rate=2e-3, final=0.01)
    rates = [learning_rate(config, step) for step in range(1101)]
    assert rates[0] == pytest.approx(2e-5) and rates[49] == pytest.approx(1e-3)
    assert rates[99] == rates[100] == 2e-3
    assert rates[600] == pytest.approx(2e-3 * (0.01 + 0.99 / 2))
    assert rates[350] == pytest.approx(2e-3 * (0.01 + 0.99 * (1 + math.sqrt(0.5)) / 2))
    assert rates[1100] == pytest.approx(2e-5)
    assert all(a >= b for a, b in zip(rates[100:], rates[101:], strict=False))


def test_rate_without_warmup_starts_at_the_peak():
    assert learning_rate(FitConfig(steps=10, warmup=0, learning_rate=0.5), 0) == 0.5


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", -1), ("learning_rate", -1.0), ("learning_rate", math.nan), ("warmup", -1), ("final", 2.0), ("ema", 1.0)],
)
def test_impossible_settings_are_refused_by_name(name: str, value: float):
    with pytest.raises(ConfigError, match=rf"fit\.{name} is "):
        tiny.config(**{name: value})


def _trained(steps: int = 3) -> tuple[nn.Module, torch.optim.Optimizer, MovingAverage]:
    module = tiny.network()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-2)
    average = MovingAverage(module, 0.5)
    for step in range(steps):
        sum(term.mean() for term in tiny.loss(module, tiny.batch(step), torch.Generator()).values()).backward()
        optimizer.step()
        optimizer.zero_grad()
        average.update(module, step)
    return module, optimizer, average


def test_checkpoint_holds_everything_exactly_by_name(tmp_path: Path):
    module, optimizer, average = _trained()
    save_state(tmp_path / "c", module=module, optimizer=optimizer, average=average, state={"step": 3})
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == [
        "ema.safetensors",
        "optimizer.safetensors",
        "state.json",
        "weights.safetensors",
    ]
    slots = load_file(tmp_path / "c/optimizer.safetensors")
    assert {"0.weight|exp_avg", "0.weight|exp_avg_sq", "0.weight|step"} <= set(slots)
    other, fresh, mean = _trained(0)
    assert load_state(tmp_path / "c", module=other, optimizer=fresh, average=mean) == {"step": 3}
    for one, two in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
        for key, value in optimizer.state[one].items():
            assert torch.equal(value, fresh.state[two][key]) and value.dtype == fresh.state[two][key].dtype
    assert all(torch.equal(average.tensors[name], mean.tensors[name]) for name in mean.tensors)
    save_state(tmp_path / "d", module=other, optimizer=fresh, average=mean, state={"step": 3})
    assert tiny.files(tmp_path / "c") == tiny.files(tmp_path / "d")


def test_swap_cut_short_is_mended_either_way(tmp_path: Path):
    module, optimizer, average = _trained()
    place, old, partial = tmp_path / "last", tmp_path / ".last.old", tmp_path / ".last.partial"
    save_state(place, module=module, optimizer=optimizer, average=average, state={"step": 3})
    expected = tiny.files(place)
    place.rename(old)
    partial.mkdir()
    (partial / "weights.safetensors").write_bytes(b"half")
    assert has_state(place)
    mend_folder(place)
    assert tiny.files(place) == expected and not old.exists() and not partial.exists()
    old.mkdir()  # the new one is in place, the old one not yet gone
    mend_folder(place)
    assert tiny.files(place) == expected and not old.exists()


@pytest.mark.parametrize("name", ["weights.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_checkpoint_is_named(tmp_path: Path, name: str, damage: str):
    module, optimizer, average = _trained()
    save_state(tmp_path / "last", module=module, optimizer=optimizer, average=average, state={"step": 3})
    path = tmp_path / "last" / name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.unlink()
    with pytest.raises(CheckpointError, match="damaged or of another model") as caught:
        load_state(tmp_path / "last", module=module, optimizer=optimizer, average=average)
    assert "\n" not in str(caught.value)


def test_cost_is_measured_and_leaves_the_weights(tmp_path: Path):
    task = tiny.task()
    before = {name: tensor.clone() for name, tensor in task.module.state_dict().items()}
    cost = time_steps(task, tiny.config(steps=3600, validate_every=3600), seed=0, steps=4)
    assert 0 < cost.step_s < 1 and cost.peak_gb > 0.01
    assert cost.hours == pytest.approx(cost.step_s + cost.validation_s / 3600)
    assert all(torch.equal(tensor, before[name]) for name, tensor in task.module.state_dict().items())


def test_no_file_is_a_pickle(tmp_path: Path):
    from synth.training.fit import fit

    fit(tiny.task(), tiny.config(steps=2), tmp_path, seed=0)
    suffixes = {path.suffix for path in map(Path, tiny.files(tmp_path))}
    assert suffixes == {".safetensors", ".json", ".jsonl"}
    assert json.loads((tmp_path / "done.json").read_text())["steps"] == 2
