"""What docs/watermark.md shows: its commands have these options, its figures are those of the benchmark's JSON."""

import json
import re
import shlex

import pytest

from pipelines.cli import main
from tests.smoke.test_readme import ROOT, require_options

PAGE = (ROOT / "docs" / "watermark.md").read_text()
FOUND = json.loads((ROOT / "benchmarks" / "results" / "watermark.json").read_text())
COMMANDS = [line for line in PAGE.splitlines() if line.startswith("synth ")]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_exist(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, verb, *words = shlex.split(command)
    if verb != "watermark":
        return require_options([verb, *words], capsys)
    assert main([verb, words[0], "--help"]) == 0
    shown = capsys.readouterr().out
    assert not [word for word in words if word.startswith("--") and word not in shown]
    return None


def test_the_table_is_the_benchmarks() -> None:
    """Detected shares in percent, by attack: MR and CT, each strength of the head; a dash where it was not tried."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")
    ]
    head = next(row for row in rows if row[0] == "after")
    columns = [cell.split() for cell in head[1:]]
    table = {row[0]: row[1:] for row in rows[rows.index(head) + 1 :] if len(row) == len(head)}
    attacks = {name for kind in FOUND["detection"].values() for each in kind.values() for name in each}
    assert set(table) == attacks and len(columns) == 2 * len(FOUND["detection"]["mr"])
    for name, cells in table.items():
        for (kind, strength), cell in zip(columns, cells, strict=True):
            found = FOUND["detection"][kind.lower()][strength].get(name)
            assert cell == ("–" if found is None else f"{100 * found['rate']:.0f}"), (name, kind, strength)


def test_the_rates_of_false_alarms_are_the_benchmarks() -> None:
    alarms = FOUND["false_alarms"]["all"]
    assert alarms["distinct_volumes"] >= 1000
    for told in (alarms["keys_a_volume"], alarms["one_key_a_volume"]):
        low, high = (100 * bound for bound in told["interval"])
        assert f"{100 * told['rate']:.2f} % ({low:.2f} to {high:.2f})" in re.sub(r"\s+", " ", PAGE)
