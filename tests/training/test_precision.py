"""Bfloat16 where it has kernels, float32 where a CPU would emulate it, and the user is told."""

import pytest
import torch

from pipelines.train import _tell_precision
from synth import precision
from synth.precision import brain_float, native
from synth.recipe import FlowTraining, Part, Recipe
from synth.training.config import FitConfig

CPU = torch.device("cpu")


@pytest.mark.parametrize("kernels", [True, False])
def test_bfloat16_is_taken_only_where_it_has_kernels(monkeypatch: pytest.MonkeyPatch, *, kernels: bool) -> None:
    monkeypatch.setattr(precision, "native", lambda _: kernels)
    layer, given = torch.nn.Linear(2, 2), torch.ones(1, 2)
    with brain_float(CPU):
        assert layer(given).dtype == (torch.bfloat16 if kernels else torch.float32)
    with brain_float(CPU, wanted=False):
        assert layer(given).dtype == torch.float32
    assert layer(given).dtype == torch.float32


def test_without_onednn_there_are_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(native(CPU), bool) and native(torch.device("cuda"))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not native(CPU)


@pytest.mark.parametrize("asked", ["bf16", "fp32"])
def test_the_user_is_told_of_another_precision(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], asked: str
) -> None:
    recipe = Recipe(name="one", image=Part(training=FlowTraining(fit=FitConfig(precision=asked))))  # pyright: ignore[reportArgumentType]
    for kernels in (True, False):
        monkeypatch.setattr(precision, "native", lambda _, kernels=kernels: kernels)
        _tell_precision(recipe, CPU)
        assert ("trained in float32" in capsys.readouterr().out) == (asked == "bf16" and not kernels)
