"""The break-even table of docs/stream.md is what the function says; the options it names are there."""

import inspect
import re
from pathlib import Path

import synth
from synth.stream import break_even

TEXT = (Path(__file__).parents[2] / "docs" / "stream.md").read_text()


def test_the_table_is_the_formula() -> None:
    lines = [line.strip("|").split("|") for line in TEXT.splitlines() if line.startswith("|")]
    head = next(number for number, line in enumerate(lines) if line[0].strip() == "seconds a sample")
    steps = [float(re.findall(r"[\d.]+", cell)[0]) for cell in lines[head][1:]]
    rows = [[float(cell) for cell in line] for line in lines[head + 2 : head + 7]]
    assert len(rows) == 5 and len(steps) == 4
    for sample_s, *said in rows:
        assert said == [round(break_even(sample_s, step_s, 0.6), 3) for step_s in steps]


def test_options_in_the_text_are_the_streams() -> None:
    options = set(inspect.signature(synth.Stream).parameters)
    (call,) = re.findall(r"synth\.Stream\((.*?)\)  ", TEXT, flags=re.DOTALL)
    assert set(re.findall(r"(\w+)=", call)) <= options
    for name in (
        "reuse",
        "depth",
        "policy",
        "masks",
        "intensity",
        "spacing",
        "size",
        "produce",
        "transform",
        "devices",
    ):
        assert name in options and name in TEXT
