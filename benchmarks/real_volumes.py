"""A real scan and a CT phantom through prepare, train, generate and evaluate; geometry, labels and HU measured. JSON.

apt-get install mricron-data
python -m benchmarks.real_volumes WORK benchmarks/results/real-volumes.json [--ch2 FOLDER] [--nnunet-python PYTHON]

WORK is a scratch folder: what earlier runs left there is replaced. Exit code 1 when a check fails. nnU-Net's own
verifier runs in another environment, since nnunetv2 is no dependency and its requirements do not install everywhere:

python -m venv nnunet
echo $PWD/.venv/lib/python3.*/site-packages > $(echo nnunet/lib/python3.*/site-packages)/main.pth
nnunet/bin/pip install --no-deps nnunetv2 batchgenerators batchgeneratorsv2 acvl-utils dynamic-network-architectures \
    blosc2 numexpr msgpack ndindex httpx
python -m benchmarks.real_volumes WORK OUT --nnunet-python nnunet/bin/python
"""

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import nibabel
import numpy as np
import torch
import tyro

from benchmarks import hounsfield
from benchmarks.real_datasets import CH2_LABELS, CT_LABELS, files_of, write_ch2, write_ct
from pipelines.configs import config_path
from synth.data.prepared import Prepared
from synth.io import write_bytes

GEOMETRY_LIMIT = 1e-4
_VERIFY = """
import sys
from importlib.metadata import version
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
print("version", version("nnunetv2"))
verify_dataset_integrity(sys.argv[1], num_processes=1)
print("accepted")
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Run the journey on both datasets and write JSON."""

    work: Annotated[Path, tyro.conf.Positional]
    out: Annotated[Path, tyro.conf.Positional]
    ch2: Path = Path("/usr/share/mricron/templates")
    """Where ch2.nii.gz and aal.nii.gz lie."""
    nnunet_python: Path | None = None
    """A Python that imports nnunetv2; without it the verifier does not run."""
    recipe: str = "any-body-flow-smoke"
    patients: int = 8
    """Patients of the CT phantom."""


@dataclass(frozen=True)
class Checks:
    """What must hold, and what was found."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, found: Any, ok: bool) -> None:
        """Note one check."""
        self.rows.append({"check": name, "found": found, "ok": bool(ok)})
        print(f"{'ok  ' if ok else 'FAIL'} {name}: {found}", flush=True)

    def equal(self, name: str, found: Any, wanted: Any) -> None:
        """Note that `found` must be `wanted`."""
        self.add(name, found if found == wanted else f"{found}, not {wanted}", found == wanted)

    def at_most(self, name: str, found: float, limit: float) -> None:
        """Note a number with its limit."""
        self.rows.append({"check": name, "found": found, "limit": limit, "ok": found <= limit})
        print(f"{'ok  ' if found <= limit else 'FAIL'} {name}: {found:.3g} (limit {limit:g})", flush=True)


@dataclass(frozen=True)
class Journey:
    """One dataset on its way: folders under `work`, the commands run and their seconds."""

    name: str
    source: Path
    work: Path
    labels: Mapping[str, int]
    commands: list[dict[str, Any]] = field(default_factory=list)

    def synth(self, verb: str, *options: object) -> str:
        """Run a command of the CLI and return what it printed; ends the benchmark when it fails."""
        words = [verb, *map(str, options)]
        begin, before = time.perf_counter(), _children_seconds()
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *words], capture_output=True, text=True, check=False
        )
        shown = " ".join(["synth", *words]).replace(f"{self.work}/", "")
        seconds = {"wall": time.perf_counter() - begin, "processor": _children_seconds() - before}
        self.commands.append({"command": shown, "seconds": {name: round(value, 1) for name, value in seconds.items()}})
        print(f"{seconds['wall']:7.1f} s, {seconds['processor']:.1f} s of processor: {shown}", flush=True)
        if done.returncode:
            sys.exit(f"{shown} ended with {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    def run(self, recipe: str, patients: str, count: int) -> str:
        """Prepare, train, generate with and without masks, evaluate both, prepare what came out; return what
        prepare said."""
        data, model = self.work / "data", self.work / "run" / "model"
        said = self.synth(
            "prepare", self.source, "--out", data, "--patients", patients, "--holdout", 0.25, "--test", 0.25
        )
        self.synth("train", recipe, "--data", data, "--out", self.work / "run")
        asked = ["--workers", 1, "--seed", 1]
        masks = ["--masks", self.source]
        self.synth("generate", model, "--out", self.work / "given", "--count", count, *masks, *asked)
        self.synth("generate", model, "--out", self.work / "free", "--count", 4, *asked)
        for made in ("given", "free"):
            options = ("--synthetic", self.work / made, "--data", data, "--out", self.work / f"report-{made}")
            self.synth("evaluate", *options)
        self.synth("prepare", self.work / "given", "--out", self.work / "again")
        return said


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def geometry(journey: Journey, checks: Checks) -> dict[str, Any]:
    """Compare samples that follow the source's masks with those masks, by nibabel and by SimpleITK."""
    import SimpleITK as sitk  # noqa: N813

    source, made = files_of(journey.source), files_of(journey.work / "given")
    worst = dict.fromkeys(("affine", "qform", "spacing", "itk"), 0.0)
    shapes, dtypes, determinants = True, set(), set()
    for number, (image, mask) in enumerate(made):
        real, asked = (nibabel.Nifti1Image.from_filename(path) for path in source[number % len(source)])
        pair = [nibabel.Nifti1Image.from_filename(path) for path in (image, mask)]
        for path, own in zip((image, mask), pair, strict=True):
            worst["affine"] = max(worst["affine"], float(np.abs(np.asarray(own.affine) - asked.affine).max()))
            worst["qform"] = max(worst["qform"], float(np.abs(own.get_qform() - asked.affine).max()))
            zooms = np.abs(np.array(own.header.get_zooms()) - asked.header.get_zooms())
            worst["spacing"] = max(worst["spacing"], float(zooms.max()))
            there, here = (sitk.ReadImage(str(p)) for p in (source[number % len(source)][1], path))
            for what in ("GetOrigin", "GetSpacing", "GetDirection"):
                gap = np.abs(np.array(getattr(there, what)()) - getattr(here, what)())
                worst["itk"] = max(worst["itk"], float(gap.max()))
            shapes &= own.shape == asked.shape
        dtypes.add((str(real.get_data_dtype()), str(pair[0].get_data_dtype())))
        determinants.add(bool(np.linalg.det(np.asarray(asked.affine)) < 0))
    for what, gap in worst.items():
        checks.at_most(f"{journey.name}: largest {what} difference to the masks followed", gap, GEOMETRY_LIMIT)
    checks.add(f"{journey.name}: grids equal", len(made), shapes)
    checks.equal(f"{journey.name}: types of images, source and made", sorted(dtypes), [("int16", "int16")])
    return {"samples": len(made), "largest_difference": worst, "left_and_right_handed": len(determinants) == 2}


def labels(journey: Journey, checks: Checks) -> dict[str, Any]:
    """Compare label names and voxels of samples with those of the masks followed, name by name."""
    info = json.loads((journey.work / "given" / "dataset.json").read_text())
    numbered = {"background": 0, **{name: n for n, name in enumerate(journey.labels, start=1)}}
    checks.equal(f"{journey.name}: labels of dataset.json, numbered without gaps", info["labels"], numbered)
    kept = info.get("synth_label_values")
    checks.equal(f"{journey.name}: their values in the source are recorded", kept, dict(journey.labels))
    source, wrong, voxels = files_of(journey.source), 0, 0
    for number, (_, mask) in enumerate(files_of(journey.work / "given")):
        own = np.asarray(nibabel.Nifti1Image.from_filename(mask).dataobj)
        asked = np.asarray(nibabel.Nifti1Image.from_filename(source[number % len(source)][1]).dataobj)
        for name, value in {"background": 0, **journey.labels}.items():
            wrong += int(((own == info["labels"][name]) != (asked == value)).sum())
        voxels += own.size
    checks.equal(f"{journey.name}: voxels whose label has another name than in the mask followed", wrong, 0)
    again = Prepared.load(journey.work / "again")
    checks.equal(f"{journey.name}: labels of the set prepared again", again.schema.label_values, numbered_only(info))
    made = Prepared.load(journey.work / "data").schema
    checks.equal(f"{journey.name}: labels of the model's schema", made.label_values, dict(journey.labels))
    return {"dataset.json": info["labels"], "synth_label_values": kept, "voxels_compared": voxels, "wrong": wrong}


def numbered_only(info: Mapping[str, Any]) -> dict[str, int]:
    """Return the labels of a dataset.json without the background."""
    return {name: value for name, value in info["labels"].items() if value}


def free(journey: Journey, checks: Checks) -> dict[str, Any]:
    """Check samples without given masks: one geometry for image and mask, the schema's grid, labels that occur."""
    schema = Prepared.load(journey.work / "data").schema
    gap, seen, fits = 0.0, set(), True
    for image, mask in files_of(journey.work / "free"):
        pair = [nibabel.Nifti1Image.from_filename(path) for path in (image, mask)]
        gap = max(gap, *(float(np.abs(one.affine - schema.reference_affine).max()) for one in pair))
        fits &= all(one.shape == schema.grid for one in pair)
        seen |= set(np.unique(np.asarray(pair[1].dataobj)).tolist())
    checks.at_most(f"{journey.name}: largest affine difference to the schema, masks generated", gap, GEOMETRY_LIMIT)
    checks.add(f"{journey.name}: grid of generated masks", list(schema.grid), fits)
    checks.add(f"{journey.name}: values of generated masks", sorted(seen), seen <= set(range(len(schema.labels) + 1)))
    return {"grid": list(schema.grid), "spacing_mm": list(schema.spacing_mm), "mask_values": sorted(seen)}


def secrets(journey: Journey, checks: Checks) -> None:
    """Check that no case id of the source stands in what is handed on: the set's tables and the model folder."""
    cases = [mask.name.removesuffix(".nii.gz") for _, mask in files_of(journey.source)]
    places = [path for made in ("given", "free") for path in (journey.work / made).rglob("*.json*")]
    places += [path for path in (journey.work / "run" / "model").iterdir() if path.suffix in (".yaml", ".md", ".json")]
    found = sorted({path.name for path in places for case in cases if case in path.read_text()})
    checks.equal(f"{journey.name}: files handed on that name a training case", found, [])


def report_of(folder: Path) -> dict[str, Any]:
    """Return verdicts, figures and what was not computed of a report."""
    report = json.loads((folder / "report.json").read_text())
    figures = {name: figure["value"] for name, figure in report["metrics"].items()}
    return {"verdicts": report["verdicts"], "figures": figures, "not_computed": report["not_computed"]}


def verified(python: Path, folder: Path) -> dict[str, Any]:
    """Return what nnU-Net's verifier says of a dataset folder."""
    done = subprocess.run([python, "-c", _VERIFY, folder], capture_output=True, text=True, check=False)
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    warned = [line for line in lines if line.startswith(("Warning", "WARNING", "Error"))]
    accepted = done.returncode == 0 and lines != [] and "accepted" in lines and not warned
    found = [line.removeprefix("version ") for line in lines if line.startswith("version ")]
    why = {} if accepted else {"said": (warned or lines[-1:])[:3]}
    return {"nnunetv2": found[0] if found else None, "accepted": accepted, **why}


def nnunet(options: Options, journeys: Sequence[Journey], checks: Checks) -> dict[str, Any]:
    """Verify every set written, the simulated cohort too; a set with gaps in its labels must be refused."""
    if options.nnunet_python is None:
        return {"not run": "give --nnunet-python"}
    cohort = Journey("cohort", Path(), options.work, {})
    cohort.synth("cohort", "--out", options.work / "cohort", "--count", 3, "--workers", 1)
    folders = [journey.work / made for journey in journeys for made in ("given", "free")]
    out: dict[str, Any] = {}
    for folder in (*folders, options.work / "cohort"):
        name = folder.relative_to(options.work).as_posix()
        out[name] = verified(options.nnunet_python, folder)
        checks.add(f"nnU-Net's verifier accepts {name}", out[name], out[name]["accepted"])
    control = verified(options.nnunet_python, journeys[-1].source)
    out["control: a source whose labels have gaps"] = control
    checks.add("nnU-Net's verifier refuses label values with gaps", control, not control["accepted"])
    return out


def brain(options: Options, checks: Checks) -> tuple[Journey, dict[str, Any]]:
    """Take crops of the one real scan through the commands; they are one patient, which must be said."""
    work = options.work / "ch2"
    journey = Journey("ch2", write_ch2(options.ch2, work / "source"), work, CH2_LABELS)
    said = journey.run(options.recipe, "(ch2)_", 6)
    prepared = Prepared.load(work / "data")
    checks.equal("ch2: sides of the split that crops of one patient lie on", _sides(prepared), ["train"])
    told = [line.strip() for line in said.splitlines() if "undecidable" in line or "cannot be judged" in line]
    checks.add("ch2: prepare says what one patient cannot show", told, len(told) == 2)
    reports = {made: report_of(work / f"report-{made}") for made in ("given", "free")}
    privacy = sorted(name for name in reports["given"]["not_computed"] if name.startswith("privacy."))
    wanted = ["privacy.copy_test", "privacy.nearest"]
    checks.equal("ch2: the report leaves privacy open", privacy, wanted)
    return journey, {"prepare_said": told, "reports": reports}


def _sides(prepared: Prepared) -> list[str]:
    return sorted({case.split for case in prepared.cases})


def ct(options: Options, checks: Checks) -> tuple[Journey, dict[str, Any]]:
    """Take the CT phantom through the commands and measure HU by tissue."""
    work = options.work / "ct"
    journey = Journey("ct", write_ct(work / "source", options.patients), work, CT_LABELS)
    journey.run(options.recipe, r"(p\d+)_", options.patients)
    prepared = Prepared.load(work / "data")
    checks.equal("ct: sides of the split", _sides(prepared), ["holdout", "test", "train"])
    window = prepared.schema.intensities[0]
    checks.equal("ct: HU are mapped by a window", window.kind, "window")
    figures = hounsfield.measure(work / "run" / "model", prepared, journey.source, work / "hounsfield")
    for name, found, limit in hounsfield.limits(figures):
        checks.at_most(f"ct: {name}", found, limit)
    asked = hounsfield.generated(journey.source, work / "given")
    reports = {made: report_of(work / f"report-{made}") for made in ("given", "free")}
    return journey, {"hounsfield": figures, "generated_mean_hu": asked, "reports": reports}


def main(options: Options) -> int:
    """Run everything, write JSON, return 1 when a check failed."""
    for name in ("ch2", "ct", "cohort"):
        shutil.rmtree(options.work / name, ignore_errors=True)
    checks, out, journeys = Checks(), {}, []
    for take in (brain, ct):
        journey, own = take(options, checks)
        journeys.append(journey)
        common = {part.__name__: part(journey, checks) for part in (geometry, labels, free)}
        secrets(journey, checks)
        out[journey.name] = {"commands": journey.commands, **common, **own}
    out["nnunet"] = nnunet(options, journeys, checks)
    failed = [row["check"] for row in checks.rows if not row["ok"]]
    arguments = f"WORK {options.out}" + (" --nnunet-python PYTHON" if options.nnunet_python else "")
    result = {
        "population": "ch2: crops of one real T1 scan (MRIcron's ch2, labels AAL); ct: a phantom",
        "command": f"python -m benchmarks.real_volumes {arguments}",
        "recipe": {"name": options.recipe, "file": config_path(options.recipe).name},
        "environment": {
            "torch": torch.__version__,
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 1),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", ""),
        },
        **out,
        "checks": checks.rows,
        "failed": failed,
    }
    write_bytes(options.out, (json.dumps(result, indent=2) + "\n").encode())
    print(f"{len(checks.rows) - len(failed)} of {len(checks.rows)} checks hold; {options.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options)))
