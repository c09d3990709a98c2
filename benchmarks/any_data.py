"""Three shapes of data from a folder to a report without a recipe: CT of thick slices, two-channel MR, colour in 2D.

python -m benchmarks.any_data WORK benchmarks/results/any-data.json --budget 20m

Each shape goes through `prepare`, `train auto`, `generate` and `evaluate` as a user types them, in processes of their
own whose wall time and peak memory are measured, and held against what the plan said. The data are phantoms.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import tyro

from pipelines.machine import seconds
from synth.formats import read as read_dataset
from synth.formats.nnunet import DatasetWriter
from synth.io import read
from synth.simulate.phantoms import CT_LABELS, RETINA_LABELS, Pair, abdomen_ct, brain_two_channels, retina

_PATH = "import sys; sys.path.insert(0, sys.argv.pop(1)); from pipelines.cli import main; sys.exit(main())"


@dataclass(frozen=True)
class Shape:
    """A shape of data: its phantoms, channels, labels and file ending."""

    make: Callable[[int], Pair]
    channels: tuple[str, ...]
    labels: Mapping[str, int]
    file_ending: str = ".nii.gz"


SHAPES = {
    "ct": Shape(abdomen_ct, ("CT",), CT_LABELS),
    "mr": Shape(brain_two_channels, ("T1", "FLAIR"), {"csf": 1, "gm": 2, "wm": 3, "lesion": 4}),
    "colour": Shape(retina, ("R", "G", "B"), RETINA_LABELS, ".png"),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Run the shapes and write JSON; a finished training is not repeated while WORK is kept."""

    work: tyro.conf.Positional[Path]
    out: tyro.conf.Positional[Path]
    budget: str = "20m"
    cases: int = 40
    samples: int = 16
    shapes: tuple[str, ...] = tuple(SHAPES)


@dataclass(frozen=True)
class Ran:
    """One command: what it printed, its wall time and the peak memory of its process."""

    said: str
    wall_s: float
    peak_gb: float


def synth(*arguments: str) -> Ran:
    """Run one command in a process of its own. Errors: RuntimeError where it does not end with 0."""
    root = str(Path(__file__).resolve().parent.parent)
    started = time.perf_counter()
    log = Path(f"/tmp/any-data-{os.getpid()}.log")
    with log.open("w+") as file:
        process = subprocess.Popen([sys.executable, "-c", _PATH, root, *arguments], stdout=file)
        _, status, usage = os.wait4(process.pid, 0)
        file.seek(0)
        said = file.read()
    log.unlink()
    if status:
        raise RuntimeError(f"synth {' '.join(arguments)} ended with {os.waitstatus_to_exitcode(status)}")
    return Ran(said, time.perf_counter() - started, usage.ru_maxrss * 1024 / 1e9)


def write(shape: Shape, folder: Path, count: int) -> Path:
    """Write phantoms as a dataset, once."""
    writer = DatasetWriter(
        folder, name=folder.name, channels=shape.channels, labels=shape.labels, file_ending=shape.file_ending
    )
    for index in range(count):
        pair = shape.make(index)
        writer.add(f"case_{index:03d}", pair.image, pair.mask)
    writer.finish(count)
    return folder


def checked(shape: Shape, source: Path, made: Path) -> dict[str, object]:
    """Return whether samples have the grid, spacing, type, range and labels of the data they stand for."""
    real, synthetic = read_dataset(source), read_dataset(made)
    first = read(real.cases[0].images[0])
    values, grids, spacings, kinds = [], set(), set(), set()
    for case in synthetic.cases:
        image = read(case.images[0])
        grids.add(image.grid)
        spacings.add(tuple(round(float(step), 4) for step in image.spacing_mm))
        kinds.add(str(image.data.dtype))
        values.append((float(image.data.min()), float(image.data.max())))
    low, high = float(first.data.min()), float(first.data.max())
    return {
        "native_grid": grids == {first.grid},
        "native_spacing": spacings == {tuple(round(float(step), 4) for step in first.spacing_mm)},
        "native_type": kinds == {str(first.data.dtype)},
        "real_range": [low, high],
        "synthetic_range": [min(v[0] for v in values), max(v[1] for v in values)],
        "labels_by_name": dict(synthetic.label_values) == dict(real.label_values),
    }


def training(work: Path, options: Options) -> dict[str, float]:
    """Train in work/run and return wall time and peak memory; kept beside it, for a run that goes on has neither."""
    path = work / "trained.json"
    if not path.is_file():
        data, run = str(work / "data"), str(work / "run")
        device = ("--device", "cpu")  # whose memory is this process's, as the plan counts it
        ran = synth("train", "auto", "--data", data, "--out", run, "--budget", options.budget, *device)
        path.write_text(json.dumps({"wall_s": ran.wall_s, "peak_gb": ran.peak_gb}))
    return json.loads(path.read_text())


def journey(name: str, options: Options) -> dict[str, object]:
    """Return what one shape's way gave."""
    shape, work = SHAPES[name], options.work / name
    source = work / "source"
    if not (source / "dataset.json").is_file():
        write(shape, source, options.cases)
    data, run, made, report = (str(work / part) for part in ("data", "run", "made", "report"))
    asked = ("--patients", "each", "--budget", options.budget, "--overwrite")
    prepared = synth("prepare", str(source), "--out", data, *asked)
    trained = training(work, options)
    plan = json.loads((work / "run" / "plan.json").read_text())["estimate"]
    generated = synth("generate", f"{run}/model", "--out", made, "--count", str(options.samples))
    judged = synth("evaluate", "--synthetic", made, "--data", data, "--out", report, "--overwrite")
    content = json.loads((work / "report" / "report.json").read_text())
    metrics = content["metrics"]
    planned_s = seconds(options.budget, "--budget")
    return {
        "grid": re.search(r"grid (\(.*?\)) at (\(.*?\)) mm", prepared.said).groups(),  # pyright: ignore[reportOptionalMemberAccess]
        "plan": {"hours": round(plan["hours"], 3), "peak_gb": round(plan["peak_gb"], 3)},
        "training_s": round(trained["wall_s"]),
        "training_of_budget": round(trained["wall_s"] / planned_s, 3),
        "training_of_plan": round(trained["wall_s"] / (3600 * plan["hours"]), 3),
        "peak_gb": round(trained["peak_gb"], 3),
        "peak_of_plan": round(trained["peak_gb"] / plan["peak_gb"], 3),
        "generate_s_per_sample": round(generated.wall_s / options.samples, 2),
        "evaluate_s": round(judged.wall_s),
        "checks": checked(shape, source, work / "made"),
        "agreement": metrics["alignment.agreement"]["value"],
        "permuted": metrics["alignment.permuted"]["value"],
        "dice": {key: metrics[key] for key in metrics if key.startswith("alignment.dice")},
        "judge_held_out": {key: metrics[key].get("floor") for key in metrics if key.startswith("alignment.dice")},
    }


def main(options: Options) -> None:
    """Run and write JSON after each shape; shapes of an earlier run that asked the same stay."""
    asked = {"budget": options.budget, "cases": options.cases, "samples": options.samples}
    found: dict[str, object] = {}
    if options.out.is_file():
        before = json.loads(options.out.read_text())
        found = before["shapes"] if before["options"] == asked else {}
    for name in options.shapes:
        found[name] = journey(name, options)
        result = {
            "command": f"python -m benchmarks.any_data WORK {options.out} --budget {options.budget}",
            "population": "phantoms of synth.simulate.phantoms",
            "options": asked,
            "cores": len(os.sched_getaffinity(0)),
            "shapes": found,
        }
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1, default=float) + "\n")
        print(json.dumps({name: found[name]}, indent=1, default=float), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))
