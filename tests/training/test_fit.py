"""The loop's laws: resuming is exact, the best is the lowest, what is no number stops it, signals end it in order."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from synth.errors import CheckpointError, ConfigError, Interrupted, SynthError
from synth.training.fit import fit
from tests.training import tiny


def _lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def _stop_at(step: int, number: int = signal.SIGTERM) -> Any:
    def report(done: int, _total: int, _figures: Any) -> None:
        if done == step:
            os.kill(os.getpid(), number)

    return report


@pytest.mark.parametrize(
    "changes",
    [{}, {"accumulation": 2}, {"precision": "bf16"}, {"precision": "fp16"}],
    ids=["plain", "parts", "bf16", "fp16"],
)
@pytest.mark.parametrize("stops", [(6,), (1, 5, 8)], ids=["half", "often"])
def test_stopped_and_resumed_equals_uninterrupted(tmp_path: Path, changes: dict[str, Any], stops: tuple[int, ...]):
    whole = tiny.task()
    fit(whole, tiny.config(**changes), tmp_path / "whole", seed=1)
    for stop in stops:
        with pytest.raises(Interrupted, match=f"step {stop} of 12"):
            fit(tiny.task(), tiny.config(**changes), tmp_path / "parts", seed=1, report=_stop_at(stop))
        assert json.loads((tmp_path / "parts/last/state.json").read_text())["step"] == stop
    resumed = tiny.task()
    fit(resumed, tiny.config(**changes), tmp_path / "parts", seed=1)
    expected = tiny.files(tmp_path / "whole")
    assert {"last/weights.safetensors", "last/optimizer.safetensors", "best/ema.safetensors", "train.jsonl"} <= set(
        expected
    )
    assert tiny.files(tmp_path / "parts") == expected
    for one, two in zip(whole.module.parameters(), resumed.module.parameters(), strict=True):
        assert torch.equal(one, two)


def test_killed_at_random_moments_equals_uninterrupted(tmp_path: Path):
    command = [sys.executable, str(Path(tiny.__file__)), str(tmp_path / "killed"), "8", "3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 1, "no child was cut short"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fit(tiny.task(), tiny.config(steps=60, checkpoint_every=2, validate_every=3), tmp_path / "whole", seed=0)
    finally:
        torch.set_num_threads(threads)
    assert tiny.files(tmp_path / "killed") == tiny.files(tmp_path / "whole")


def test_finished_stage_is_not_trained_again(tmp_path: Path):
    first = tiny.task()
    fit(first, tiny.config(), tmp_path, seed=0)
    before = tiny.files(tmp_path)

    def never(_number: int) -> torch.Tensor:
        raise AssertionError("a finished stage asked for a batch")

    again = tiny.task(batch=never)
    fit(again, tiny.config(), tmp_path, seed=0)
    assert tiny.files(tmp_path) == before
    for one, two in zip(first.module.parameters(), again.module.parameters(), strict=True):
        assert torch.equal(one, two)


def test_randomness_is_the_seeds_alone(tmp_path: Path):
    torch.manual_seed(1)
    fit(tiny.task(), tiny.config(steps=4), tmp_path / "a", seed=0)
    torch.manual_seed(2)
    second, state = tiny.task(), torch.get_rng_state()
    fit(second, tiny.config(steps=4), tmp_path / "b", seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    fit(tiny.task(), tiny.config(steps=4), tmp_path / "c", seed=1)
    weights = "last/weights.safetensors"
    assert tiny.files(tmp_path / "a") == tiny.files(tmp_path / "b")
    assert tiny.files(tmp_path / "a")[weights] != tiny.files(tmp_path / "c")[weights]


def test_accumulated_parts_are_one_large_batch(tmp_path: Path):
    def plain(module: nn.Module, pixels: torch.Tensor, _rng: torch.Generator) -> dict[str, torch.Tensor]:
        return {"l2": (module(pixels) - pixels).square().flatten(1).mean(1)}

    parts, whole = tiny.task(loss=plain), tiny.task(loss=plain)
    both = tiny.task(whole.module, loss=plain, batch=lambda n: torch.cat([tiny.batch(2 * n), tiny.batch(2 * n + 1)]))
    fit(parts, tiny.config(accumulation=2), tmp_path / "parts", seed=0)
    fit(both, tiny.config(), tmp_path / "both", seed=0)
    for one, two in zip(parts.module.parameters(), both.module.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_fp16_skips_steps_that_overflow_and_goes_on(tmp_path: Path):
    """A loss whose scaled gradient leaves fp16 costs steps, never weights; the scale is in the checkpoint."""

    def steep(module: nn.Module, pixels: torch.Tensor, rng: torch.Generator) -> dict[str, torch.Tensor]:
        return {name: 30.0 * term for name, term in tiny.loss(module, pixels, rng).items()}

    config = tiny.config(precision="fp16", steps=12)
    fit(tiny.task(loss=steep), config, tmp_path, seed=0)
    rows = _lines(tmp_path)
    skipped = [row for row in rows if row.get("skipped")]
    trained = [row for row in rows if row.get("scale") and not row.get("skipped")]
    assert skipped and trained
    assert trained[-1]["scale"] < 65536.0
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert json.loads((tmp_path / "last" / "state.json").read_text())["scaler"]["scale"] == trained[-1]["scale"]


def test_bf16_convolves_in_bf16_and_a_later_stage_in_fp32(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("synth.precision.native", lambda _: True)
    seen: list[torch.dtype] = []
    for precision in ("bf16", "fp32", "bf16"):
        module = tiny.network()
        module[0].register_forward_hook(lambda _m, _i, out: seen.append(out.dtype) if out.requires_grad else None)
        fit(tiny.task(module), tiny.config(steps=1, precision=precision), tmp_path / f"{len(seen)}", seed=0)
    assert seen == [torch.bfloat16, torch.float32, torch.bfloat16]


def test_best_is_the_lowest_score_and_the_average(tmp_path: Path):
    scores = iter([3.0, 1.0, 2.0])
    averages: list[torch.Tensor] = []
    module = tiny.network()

    def validate() -> dict[str, float]:
        averages.append(next(module.parameters()).detach().clone())
        return {"score": next(scores)}

    fit(tiny.task(module, validate=validate), tiny.config(), tmp_path, seed=0)
    assert json.loads((tmp_path / "best/state.json").read_text()) == {
        "best": 1.0,
        "best_step": 8,
        "latest": 1.0,
        "step": 8,
    }
    assert json.loads((tmp_path / "last/state.json").read_text()) == {
        "best": 1.0,
        "best_step": 8,
        "latest": 2.0,
        "step": 12,
    }
    assert torch.equal(next(module.parameters()), averages[1])
    assert [line["holdout.score"] for line in _lines(tmp_path) if "holdout.score" in line] == [3.0, 1.0, 2.0]


def test_preview_sees_the_average_after_each_validation(tmp_path: Path):
    shown: list[int] = []
    fit(tiny.task(preview=shown.append), tiny.config(), tmp_path, seed=0)
    assert shown == [4, 8, 12]


def test_log_holds_terms_rate_and_norm_and_no_times(tmp_path: Path):
    fit(tiny.task(), tiny.config(), tmp_path, seed=0)
    steps = [line for line in _lines(tmp_path) if "loss" in line]
    assert [line["step"] for line in steps] == [0, 2, 4, 6, 8, 10, 11]
    for line in steps:
        assert set(line) == {"step", "loss", "l1", "l2", "norm", "rate"}
        assert line["loss"] == pytest.approx(line["l1"] + line["l2"])
    times = [json.loads(line) for line in (tmp_path / "timing.jsonl").read_text().splitlines()]
    assert len(times) == len(_lines(tmp_path)) and all(line["seconds"] > 0 for line in times)


@pytest.mark.parametrize("fault", ["loss", "gradient norm"])
def test_no_number_stops_in_words_and_keeps_the_last_checkpoint(tmp_path: Path, fault: str):
    def broken(module: nn.Module, pixels: torch.Tensor, rng: torch.Generator) -> dict[str, torch.Tensor]:
        terms = tiny.loss(module, pixels, rng)
        if fault == "loss":
            terms["l2"] = terms["l2"] * float("nan")
        else:  # finite loss, endless slope
            terms["root"] = (next(module.parameters()) * 0).abs().sum().sqrt().expand(len(pixels))
        return terms

    calls = []

    def late(module: nn.Module, pixels: torch.Tensor, rng: torch.Generator) -> dict[str, torch.Tensor]:
        calls.append(1)
        return (broken if len(calls) == 6 else tiny.loss)(module, pixels, rng)

    with pytest.raises(SynthError, match=f"stage tiny: the {fault} is (nan|inf) at step 5.*learning_rate"):
        fit(tiny.task(loss=late), tiny.config(), tmp_path, seed=0)
    assert json.loads((tmp_path / "last/state.json").read_text())["step"] == 3
    assert not (tmp_path / "done.json").exists()
    fit(tiny.task(), tiny.config(), tmp_path, seed=0)
    fit(tiny.task(), tiny.config(), tmp_path.with_name("whole"), seed=0)
    assert tiny.files(tmp_path) == tiny.files(tmp_path.with_name("whole"))


def test_score_that_is_no_number_stops(tmp_path: Path):
    with pytest.raises(SynthError, match="hold-out score is nan at step 3"):
        fit(tiny.task(validate=lambda: {"score": float("nan")}), tiny.config(), tmp_path, seed=0)
    assert not (tmp_path / "best").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signal_leaves_a_checkpoint_and_the_handlers(tmp_path: Path, number: int):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="run again to resume"):
        fit(tiny.task(), tiny.config(), tmp_path, seed=0, report=_stop_at(2, number))
    assert json.loads((tmp_path / "last/state.json").read_text())["step"] == 2
    assert signal.getsignal(number) is before


def test_signal_in_the_last_step_is_not_lost(tmp_path: Path):
    with pytest.raises(Interrupted, match="complete"):
        fit(tiny.task(), tiny.config(), tmp_path, seed=0, report=_stop_at(12))
    assert (tmp_path / "done.json").is_file()


@pytest.mark.parametrize(("name", "value"), [("steps", 20), ("learning_rate", 2e-2), ("precision", "bf16")])
def test_another_config_is_refused_by_name(tmp_path: Path, name: str, value: Any):
    with pytest.raises(Interrupted):
        fit(tiny.task(), tiny.config(), tmp_path, seed=0, report=_stop_at(2))
    before = tiny.files(tmp_path)
    with pytest.raises(ConfigError, match=f"{name} = .*another --out"):
        fit(tiny.task(), tiny.config(**{name: value}), tmp_path, seed=0)
    with pytest.raises(ConfigError, match="seed = 0, now it is 5"):
        fit(tiny.task(), tiny.config(), tmp_path, seed=5)
    assert tiny.files(tmp_path) == before


def test_a_field_the_folder_does_not_know_counts_as_its_default(tmp_path: Path):
    with pytest.raises(Interrupted):
        fit(tiny.task(), tiny.config(), tmp_path, seed=0, report=_stop_at(2))
    path = tmp_path / "config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "clip"}))
    with pytest.raises(ConfigError, match="clip = 1.0, now it is 2.0"):
        fit(tiny.task(), tiny.config(clip=2.0), tmp_path, seed=0)
    fit(tiny.task(), tiny.config(), tmp_path, seed=0)


def test_other_settings_are_refused_by_name(tmp_path: Path):
    settings = {"patch": (8, 10, 8), "codec": {"kind": "identity"}}
    with pytest.raises(Interrupted):
        fit(tiny.task(settings=settings), tiny.config(), tmp_path, seed=0, report=_stop_at(2))
    with pytest.raises(ConfigError, match=r"patch = \[8, 10, 8\], now it is \[4, 4, 4\]"):
        fit(tiny.task(settings={**settings, "patch": (4, 4, 4)}), tiny.config(), tmp_path, seed=0)
    fit(tiny.task(settings={**settings, "new": 1}), tiny.config(), tmp_path, seed=0)


def test_checkpoint_of_another_module_is_refused_in_one_line(tmp_path: Path):
    with pytest.raises(Interrupted):
        fit(tiny.task(), tiny.config(), tmp_path, seed=0, report=_stop_at(2))
    wide = nn.Sequential(nn.Conv3d(1, 8, 3, padding=1), nn.SiLU(), nn.Conv3d(8, 1, 3, padding=1))
    with pytest.raises(CheckpointError, match="of another model") as caught:
        fit(tiny.task(wide), tiny.config(), tmp_path, seed=0)
    assert "\n" not in str(caught.value)


def test_half_line_of_a_killed_run_is_dropped(tmp_path: Path):
    fit(tiny.task(), tiny.config(), tmp_path / "whole", seed=0)
    with pytest.raises(Interrupted):
        fit(tiny.task(), tiny.config(), tmp_path / "cut", seed=0, report=_stop_at(6))
    with (tmp_path / "cut/train.jsonl").open("a") as file:
        file.write('{"step": 8, "loss": 1.0}\n{"step": 10, "lo')
    fit(tiny.task(), tiny.config(), tmp_path / "cut", seed=0)
    assert tiny.files(tmp_path / "cut") == tiny.files(tmp_path / "whole")


def _scored(scores: list[float]) -> Any:
    """A hold-out score that follows a list by the number of validations logged so far."""
    return lambda: {"score": scores.pop(0)}


def test_a_rising_holdout_score_ends_the_stage_in_words(tmp_path: Path):
    scores = [3.0, 1.0, 2.0, 1.5, 0.5]
    config = tiny.config(steps=20, patience=2)
    module = tiny.network()
    words = fit(tiny.task(module, validate=_scored(scores)), config, tmp_path, seed=0)
    assert words is not None and "best at step 8 (1) and is 1.5 now" in words and "step 16 of 20" in words
    assert scores == [0.5] and json.loads((tmp_path / "done.json").read_text())["steps"] == 16
    kept = load_file(tmp_path / "best" / "ema.safetensors")
    assert all(torch.equal(tensor, kept[name]) for name, tensor in module.state_dict().items())
    assert fit(tiny.task(validate=_scored([])), config, tmp_path, seed=0) == words  # told again, not trained again
    (tmp_path / "done.json").unlink()  # killed between the end and its mark
    assert fit(tiny.task(validate=_scored([])), config, tmp_path, seed=0) == words


def test_patience_does_not_end_what_still_improves(tmp_path: Path):
    config = tiny.config(patience=1)
    assert fit(tiny.task(validate=_scored([3.0, 2.0, 1.0])), config, tmp_path, seed=0) is None
    assert json.loads((tmp_path / "done.json").read_text())["steps"] == 12
