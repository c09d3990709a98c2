"""What docs/batch.md shows: its commands have these options, its plan is one for the bundled model, its script is bash."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from pipelines.plans import read_plan
from synth.generator import load
from tests.smoke.test_readme import ROOT, require_options

PAGE = (ROOT / "docs" / "batch.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.removeprefix("srun ")
    for _, text in BLOCKS
    for line in text.splitlines()
    if line.removeprefix("srun ").startswith("synth ")
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_exist(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    require_options(shlex.split(command)[1:], capsys)


def test_the_plan_is_one(tmp_path: Path) -> None:
    (tmp_path / "plan.csv").write_text(next(text for language, text in BLOCKS if language == "csv"))
    plan = read_plan(tmp_path / "plan.csv")
    assert plan.count == 8
    if (ROOT / "synth" / "assets" / "brain-tiny").is_dir():
        schema = load("brain-tiny").model.recipe.schema
        assert schema is not None
        for row in plan.rows:
            schema.check_attributes(dict(row.attributes))


def test_the_job_script_is_bash(tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(next(text for language, text in BLOCKS if language == "bash"))
    subprocess.run(["bash", "-n", str(script)], check=True)
