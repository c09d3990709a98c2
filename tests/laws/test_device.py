"""Laws of devices: nothing in training or sampling mixes a model's device with the host's."""

from pathlib import Path

import pytest
import torch

import synth
from pipelines.cli import main
from pipelines.machine import full_float32
from synth import config
from synth.data.prepared import Prepared
from synth.denoiser import Bound, Denoiser, Guided
from synth.generator import Sampling
from synth.ports import Ports
from synth.process import GaussianProcess
from synth.recipe import Recipe
from synth.rng import torch_rng
from synth.sample import Condition
from synth.sampler import SAMPLERS, SamplerName
from synth.training.experiment import Experiment
from tests.conftest import tiny_recipe
from tests.laws.device import META, Strict
from tests.laws.exact import NAMES, PROCESSES
from tests.laws.test_windows import Pointwise

ASK = Condition(text="a long thing", attributes={"kind": "b", "size": 2.5})


def test_the_stand_in_is_as_strict_as_a_gpu() -> None:
    here, there = torch.ones(2, 2), torch.ones(2, 2, device=META)
    with Strict():
        for mixed in (lambda: here @ there, lambda: here * there, lambda: torch.nn.functional.linear(there, here)):
            with pytest.raises(RuntimeError, match="device"):
                mixed()
        assert float((there * torch.ones(())).sum()) == 1.0
        assert there.cpu().device.type == "cpu"


@pytest.mark.parametrize(("sampler", "window"), [*((name, None) for name in SAMPLERS), ("euler", (6, 6, 6))])
def test_samples_are_made_on_the_models_device(
    model: Path, sampler: SamplerName, window: tuple[int, ...] | None
) -> None:
    generator = synth.load(model, device=META)
    assert {part.device for part in generator.model.parts().values()} == {META}
    sampling = Sampling(sampler=SAMPLERS[sampler], steps=2, guidance=2.0, window=window)
    with Strict() as mode:
        (sample,) = generator.with_sampling(sampling).generate([ASK], seeds=[3])
    assert mode.crossings == 2, "pixels of mask and image come to the host once each"
    assert sample.image.grid == (16, 12, 12)
    assert sample.provenance.environment["device"] == "meta"


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("process", PROCESSES, ids=NAMES)
def test_every_process_steps_on_the_device(process: GaussianProcess, sampler: SamplerName) -> None:
    rng = torch_rng(0)
    x = process.start((1, 2, 3, 4), rng).to(META)
    with Strict():
        bound = Bound(Denoiser(Pointwise(), process), Ports())
        assert SAMPLERS[sampler](Guided([bound, bound], [2.0]), process.grid(3, (3, 4)), x, rng).device == META
        clean = torch.ones(2, 2, 3, 4, device=META)
        times = process.draw(2, rng)
        noisy, noise = process.corrupt(clean, times, rng)
        assert process.objective(noisy, clean, noise, times).device == META


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")
@pytest.mark.parametrize(
    "changes", [(), ("image.training.coupling.kind=minibatch_ot",), ("image.codec_training.adversarial=0.1",)]
)
def test_every_stage_trains_on_the_device(prepared: Prepared, tmp_path: Path, changes: tuple[str, ...]) -> None:
    recipe = config.load(Recipe, tiny_recipe(3), overrides=changes)
    with Strict() as mode:
        folder = Experiment(recipe, prepared, tmp_path, lambda _: lambda *_: None, device=META).run()
    assert mode.crossings
    assert synth.load(folder).model.image.device.type == "cpu"


@pytest.mark.parametrize(
    ("device", "words"),
    [("tpu", "give auto, cpu, cuda"), ("cuda:7", "torch sees no GPU"), ("cuda", "torch sees no GPU")],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_refused(
    model: Path, prepared: Prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str], device: str, words: str
) -> None:
    out = str(tmp_path / "out")
    for verb in (["generate", str(model), "--out", out, "--count", "1"], ["bench", str(model)]):
        assert main([*verb, "--device", device]) == 2
        assert words in capsys.readouterr().err
    (tmp_path / "r.yaml").write_text(tiny_recipe(3))
    train = ["train", str(tmp_path / "r.yaml"), "--data", str(prepared.folder), "--out", out]
    assert main([*train, "--device", device]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("device", "allowed"), [("cpu", True), ("cuda:1", False)])
def test_gpus_convolve_in_float32_where_samples_are_made(
    device: str, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    full_float32(device)
    assert torch.backends.cudnn.allow_tf32 == allowed
