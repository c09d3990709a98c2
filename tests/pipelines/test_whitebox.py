"""White-box losses: those of training, under the model that made the set and no other."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import synth
from pipelines.cli import run
from pipelines.evidence import real_set
from pipelines.whitebox import TIMES, denoising_losses, selection
from synth.data.prepared import Prepared
from synth.data.seen import Seen
from synth.errors import ConfigError
from synth.rng import torch_rng
from synth.training.flow_stage import Crop, Latents
from synth.training.objectives import DenoisingObjective


def test_losses_are_those_of_training(model: Path, prepared: Prepared) -> None:
    case = prepared.split("train")[0]
    (item,) = real_set(prepared, [case])
    found = denoising_losses(str(model), prepared.schema, made_by=None)(item)
    assert found.shape == (2 * TIMES,) and np.isfinite(found).all()
    part = synth.load(model).model.image
    latents = Latents(prepared, model.parent / "image" / "latents", part.codec.stride, masks=True)
    full = tuple(latents.of(case).shape[1:])
    batch = latents.batch([Crop(case, (0,) * len(full))], full)
    objective = DenoisingObjective(torch.ones(len(latents.of(case))))
    for step in (1, 4):
        at = part.flow.denoiser.process.at_share(torch.tensor([(step + 0.5) / TIMES], dtype=torch.float64))
        with torch.inference_mode():
            loss = objective.at(part.flow, batch, at, torch_rng(0, "white box", 0, step))
        assert found[step] == pytest.approx(float(loss.mean()), rel=0.02)  # the folder holds half precision


def test_losses_repeat_and_depend_on_the_volume_alone(model: Path, prepared: Prepared) -> None:
    one, two = real_set(prepared, prepared.split("train")[:2])
    loss = denoising_losses(str(model), prepared.schema, made_by=None)
    first, second = loss(one), loss(two)
    assert np.array_equal(first, loss(replace(one, case="other"))) and not np.array_equal(first, second)


def test_another_model_and_other_labels_are_refused(model: Path, prepared: Prepared) -> None:
    with pytest.raises(ConfigError, match="not the model that made the set"):
        denoising_losses(str(model), prepared.schema, made_by="0" * 64)
    labels = (replace(prepared.schema.labels[0], name="tumour"), *prepared.schema.labels[1:])
    with pytest.raises(ConfigError, match="'tumour' of the data is unknown"):
        denoising_losses(str(model), replace(prepared.schema, labels=labels), made_by=None)


def test_patients_that_chose_the_checkpoint_are_known(prepared: Prepared) -> None:
    held, tested = ({case.patient for case in prepared.split(side)} for side in ("holdout", "test"))
    assert held and tested
    assert selection(prepared, None, prepared_before=True) == held
    assert selection(prepared, None, prepared_before=False) == frozenset()
    assert selection(prepared, Seen.of(prepared, seed=0), prepared_before=False) == held


def test_the_weights_are_judged_from_the_command(
    model: Path, prepared: Prepared, dataset: Path, tmp_path: Path
) -> None:
    made = Path(shutil.copytree(dataset, tmp_path / "made"))
    options = ["--synthetic", str(made), "--data", str(prepared.folder), "--only", "privacy", "--model", str(model)]
    assert run("evaluate", [*options, "--out", str(tmp_path / "out")]) == 0
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (
        "privacy.weights_auc" in content["metrics"]
        and "cannot certify" in content["not_computed"]["privacy.weights_tpr_1"]
    )
    sides = sum(len({case.patient for case in prepared.split(side)}) for side in ("train", "test"))
    assert content["metrics"]["privacy.weights_auc"]["n"] == sides, "those that chose the checkpoint are left out"
    assert any("that of the weights leaves them out" in note for note in content["notes"])
    rows = [{"case": f"c{i:02d}", "condition": {"attributes": {}}, "model": {"sha256": "1"}} for i in range(8)]
    (made / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("evaluate", [*options, "--out", str(tmp_path / "again")]) == 2
