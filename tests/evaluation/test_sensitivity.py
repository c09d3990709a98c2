"""Metrics keep what they declare on phantoms, and the matrix benchmark says what it measured."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.corruptions import Options, main, markdown
from evaluation.extractors import radiomics_extractor
from evaluation.sensitivity import PROBES, Sets, order_of
from synth.augment import CORRUPTIONS, SET_CORRUPTIONS, corrupt
from synth.data.prepared import Prepared
from tests.conftest import phantom


def test_declarations_name_corruptions_that_exist() -> None:
    for name, probe in PROBES.items():
        assert probe.sees <= set(CORRUPTIONS) | set(SET_CORRUPTIONS), name
        assert probe.sees, name
        assert not (probe.paired and probe.sees & set(SET_CORRUPTIONS)), name
    for metric in ("frechet", "kernel"):
        assert {"offset", "mode_drop"} <= PROBES[metric].sees


def test_order_is_strict_up_to_saturation() -> None:
    assert order_of(PROBES["frechet"], [0, 1, 2, 3, 4, 5]).strict
    tied = order_of(PROBES["frechet"], [0, 1, 2, 2, 4, 5])
    assert not tied.strict and tied.saturated == 0
    falling = order_of(PROBES["frechet"], [9, 5, 4, 3, 2, 1])
    assert (falling.strict, falling.rises, falling.spearman) == (False, False, -1.0)
    assert order_of(PROBES["ssim"], [1, 0.5, 0.1, 0.0, 0.0, 0.0]).strict
    assert not order_of(PROBES["ssim"], [1, 0.5, 0.5, 0.0, 0.0, 0.0]).strict
    assert not order_of(PROBES["ssim"], [1, 0.2, 0.2, 0.2, 0.2, 0.2]).strict, "a blind metric is not a saturated one"
    assert order_of(PROBES["ssim"], [1, 0.9, 0.8, 0.7, 0.6, 0.5]).spearman == 1.0


@pytest.mark.parametrize("name", ["gaussian_noise", "offset", "blur", "slice_dropping"])
def test_metrics_order_severities_on_phantoms(name: str) -> None:
    measure = radiomics_extractor()
    volumes = [(np.maximum(i[None] / 800, 0), m) for i, m in (phantom(n, (14, 14, 30)) for n in range(32))]
    rows = np.stack([measure(i, m, labels=2) for i, m in volumes[:16]])
    centre, spread = rows.mean(axis=0), rows.std(axis=0) + 1e-6
    steps = []
    for severity in range(6):
        made = [corrupt(i, name, severity, seed=n)[0] if severity else i for n, (i, _) in enumerate(volumes[16:])]
        found = np.stack([measure(i, m, labels=2) for i, (_, m) in zip(made, volumes[16:], strict=True)])
        originals = [image for image, _ in volumes[16:18]]
        steps.append(Sets((found - centre) / spread, (rows - centre) / spread, made[:2], originals))
    for metric in ("frechet", "frechet_radiomics", "kernel", "ssim", "psnr"):
        if name in PROBES[metric].sees:
            found = order_of(PROBES[metric], [PROBES[metric].measure(sets) for sets in steps])
            assert found.strict and found.rises, (metric, found)


def test_the_benchmark_writes_a_matrix_and_its_table(prepared: Prepared, tmp_path: Path) -> None:
    out = tmp_path / "matrix.json"
    options = Options(data=prepared.folder, out=out, count=3, pairs=0, seeds=1, only=("offset",), workers=1)
    main(options)
    result = json.loads(out.read_text())
    assert result["population"] == prepared.schema.population
    row = next(row for row in result["rows"] if row["metric"] == "frechet")
    assert (row["corruption"], row["declared"], len(row["values"][0])) == ("offset", True, 6)
    table = markdown(result)
    assert "| offset |" in table and "frechet" in table
    main(Options(data=prepared.folder, out=out, markdown=tmp_path / "table.md"))
    assert (tmp_path / "table.md").read_text() == table
