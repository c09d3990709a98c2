"""Run nnU-Net v2 on what Synth hands to it, in small: the printed commands, the trainer file, the arms of a comparison.

    pip install --no-deps torchvision==0.28.0     # nnU-Net imports it; on a CPU build of torch empty its
                                                  # _meta_registrations.py: it asks for operators that are not there
    pip install -c constraints.txt nnunetv2==2.8.1 'synthvol[cohort,train]'
    OMP_NUM_THREADS=1 python -m benchmarks.nnunet_run --work WORK --out benchmarks/results/nnunet.json \\
        --log docs/nnunet/run.log

Twelve simulated cases, eight samples of brain-tiny fine-tuned on seven of them, so that the set says whom its model
saw. Two epochs of three steps at 7.8 mm: whether everything runs and who validates is the question, no score is. WORK
keeps cases, model and set; what nnU-Net makes is made anew. Ends with an error where a command fails or a fold leaks.
"""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.keeping import ROOT, command_line
from benchmarks.nnunet_programs import ENVIRONMENT, LENGTH, SMALL, Programs
from synth.data.prepared import Prepared

REAL, MIXED, KIND = "Dataset501_Brain", "Dataset601_Mixed", "3d_fullres"
SHORT = [
    f"--set={part}.training.fit.{name}={value}"
    for part in ("image", "mask")
    for name, value in (
        ("steps", 2),
        ("validate_every", 2),
        ("checkpoint_every", 2),
        ("warmup", 1),
        ("learning_rate", "1.0e-9"),
    )
]
"""Fine-tuning that changes nothing but whom the model is known to have seen."""
MADE = ("nnUNet_preprocessed", "nnUNet_results", "arms", "report", "scores", "buffer", "trainers", "given", "told")
KEPT = re.compile(
    r"^\$ |^\[exit code|error\b|warning|verify_dataset_integrity Done|splits_final.json|The split file|Desired fold"
    r"|This split has|^predicting |Loading pretrained|^(train_loss|val_loss|Pseudo dice|Epoch|Mean Validation Dice)"
    r"|Using trainer|^arms in|^report in|cases in |validates? on|^cp |^for fold|^# |^nnUNetv2_",
    re.IGNORECASE,
)
"""Lines of the whole log that a reader needs."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Run nnU-Net on what Synth hands to it, and write what happened."""

    work: Path
    out: Path
    log: Path
    folds: int = 2


def synth(verb: str, *words: object) -> None:
    """Run a verb of this project in a process of its own: what nnU-Net is forked from must have used no threads.

    Errors: RuntimeError where it fails.
    """
    line = [sys.executable, "-m", "pipelines.cli", verb, *map(str, words)]
    if subprocess.run(line, cwd=ROOT, check=False).returncode != 0:
        raise RuntimeError(f"synth {verb} failed")


def sets(work: Path) -> None:
    """Make the real dataset, its prepared form, the model and the generated set, as far as they are not there."""
    real = work / "nnUNet_raw" / REAL
    if not (real / "dataset.json").is_file():
        synth("cohort", "--out", real, "--count", 12, "--seed", 5, "--workers", 1)
    if not (work / "data" / "prepared.yaml").is_file():
        synth("prepare", real, "--out", work / "data", "--holdout", 0.17, "--test", 0.42)
    if not (work / "run" / "model").is_dir():
        synth("train", "same", "--from", "brain-tiny", "--data", work / "data", "--out", work / "run", *SHORT)
    if not (work / "set" / "manifest.jsonl").is_file():
        synth("generate", work / "run" / "model", "--out", work / "set", "--count", 8, "--workers", 1)


def places(work: Path, results: str = "nnUNet_results") -> dict[str, str]:
    """Return nnU-Net's folders as it wants to hear of them."""
    names = {"nnUNet_raw": "nnUNet_raw", "nnUNet_preprocessed": "nnUNet_preprocessed", "nnUNet_results": results}
    return {name: str(work / folder) for name, folder in names.items()}


def hand_over(programs: Programs, work: Path, folds: int) -> None:
    """Run `synth merge --into` and then what it prints, as it is printed. Errors: RuntimeError."""
    raw = work / "nnUNet_raw"
    line = ["merge", work / "set", "--into", raw / REAL, "--ratio", 0.6, "--folds", folds, "--out", raw / MIXED]
    printed = work / "printed.sh"
    if programs.shell(f"synth {' '.join(map(str, line))} > {printed}", environment=places(work), cwd=work):
        raise RuntimeError("synth merge failed")
    said = printed.read_text()
    programs.say(said)
    script = said.partition("\n\n")[2]
    if programs.shell(script, environment=places(work), cwd=work):
        raise RuntimeError("the printed commands failed")


def stream(programs: Programs, work: Path) -> None:
    """Run docs/nnunet's trainer on the real dataset, fold 0 of its splits. Errors: RuntimeError."""
    source = (ROOT / "docs" / "nnunet" / "nnUNetTrainerSynth.py").read_text()
    for old, new in (
        ('MODEL = "run/model"', f'MODEL = "{work}/run/model"'),
        ('BUFFER = "buffer"', f'BUFFER = "{work}/buffer"'),
        ("RATIO, REUSE = 0.3, 20", "RATIO, REUSE = 0.5, 2"),
    ):
        if old not in source:
            raise RuntimeError(f"the trainer file has no line {old}")
        source = source.replace(old, new)
    folder = work / "trainers"
    folder.mkdir(exist_ok=True)
    (folder / "nnUNetTrainerSynth.py").write_text(source)
    script = f"""
nnUNetv2_preprocess -d 501 -c {KIND}
cp "$nnUNet_raw/{MIXED}/splits_real.json" "$nnUNet_preprocessed/{REAL}/splits_final.json"
nnUNetv2_train 501 {KIND} 0 -tr nnUNetTrainerSynth
mkdir given
cp "$nnUNet_raw/{REAL}/imagesTr/sim_0000_0000.nii.gz" given
nnUNetv2_predict -d 501 -i given -o told -c {KIND} -tr nnUNetTrainerSynth -f 0
"""
    environment = {**places(work), "nnUNet_extTrainer": str(folder)}
    if programs.shell(script, environment=environment, cwd=work):
        raise RuntimeError("the trainer file failed")


def scored(programs: Programs, work: Path, folds: int) -> dict[str, Any]:
    """Compare both ways of training by the scores of their validation, and return the report. Errors: RuntimeError."""
    place = f"nnUNet_results/{MIXED}/nnUNetTrainer__nnUNetPlans_of_501__{KIND}"
    ways = [",".join(f"{place}/fold_{first + fold}" for fold in range(folds)) for first in (0, folds)]
    line = f"synth evaluate --nnunet both={ways[0]} finetuned={ways[1]} --out scores"
    if programs.shell(line, environment={}, cwd=work):
        raise RuntimeError("the scores of the validation could not be compared")
    return json.loads((work / "scores" / "report.json").read_text())


def arms(programs: Programs, work: Path) -> dict[str, Any]:
    """Export the arms R and RS, run their commands once, and return the report. Errors: RuntimeError."""
    folder = work / "arms"
    line = f"""
synth evaluate --synthetic set --data data --out report --judge-steps 0 --only condition \
--export-arms arms --native nnUNet_raw/{REAL} --utility-arms R RS
sed 's/for run in 0 1 2/for run in 0/' arms/commands.sh > once.sh
mv once.sh arms/once.sh
bash arms/once.sh
"""
    if programs.shell(line, environment={}, cwd=work):
        raise RuntimeError("the arms failed")
    return json.loads((folder / "report" / "report.json").read_text())


def validated(folder: Path) -> list[str]:
    """Return the cases that nnU-Net scored at the end of a training."""
    rows = json.loads((folder / "validation" / "summary.json").read_text())["metric_per_case"]
    return sorted(Path(row["reference_file"]).name.removesuffix(".nii.gz") for row in rows)


def checked(work: Path) -> list[dict[str, Any]]:
    """Return who validated in each training. Errors: RuntimeError for a synthetic case or a patient the model saw."""
    prepared = Prepared.load(work / "data")
    unseen, held = ({case.case for case in prepared.split(side)} for side in ("test", "holdout"))
    # arms validate on the hold-out: what an arm is tested on may not choose its checkpoint
    folders = [(path, unseen) for path in sorted((work / "nnUNet_results").glob("*/*/fold_*"))]
    folders += [(path, held) for path in sorted((work / "arms" / "run_0").glob("*/*/fold_*"))]
    out = []
    for folder, allowed in folders:
        cases = validated(folder)
        if not cases or set(cases) - allowed:
            raise RuntimeError(f"{folder} validated on {sorted(set(cases) - allowed) or 'nobody'}")
        (log,) = folder.glob("training_log_*.txt")
        said = re.findall(r"This split has (\d+) training and (\d+) validation cases", log.read_text())
        trainer, fold = folder.parent.name.partition("__")[0], folder.name.removeprefix("fold_")
        told = {"dataset": folder.parent.parent.name, "trainer": trainer, "fold": fold}
        out.append({**told, "training": int(said[0][0]), "validation": int(said[0][1]), "validated_on": cases})
    return out


def same_sample(work: Path) -> float:
    """Return how far the trainer file's sample 0 is from file syn_00000, each as nnU-Net preprocessed it."""
    import blosc2
    from safetensors.numpy import load

    (folder,) = (work / "buffer").glob("nnunet-*")
    kept = load((folder / "00000000.safetensors").read_bytes())
    place = work / "nnUNet_preprocessed" / MIXED / f"nnUNetPlans_of_501_{KIND}"
    image, labels = (blosc2.open(str(place / f"syn_00000{end}.b2nd"), mode="r")[:] for end in ("", "_seg"))
    if not np.array_equal(kept["labels"], labels):
        raise RuntimeError("the trainer file's labels of sample 0 are not those of its file")
    return float(np.abs(kept["image"] - image).max())


def plans(work: Path) -> dict[str, Any]:
    """Return spacing, patch and batch of the plan."""
    path = work / "nnUNet_preprocessed" / MIXED / "nnUNetPlans_of_501.json"
    told = json.loads(path.read_text())["configurations"][KIND]
    return {name: told[name] for name in ("spacing", "median_image_size_in_voxels", "patch_size", "batch_size")}


def kept(whole: Path, work: Path) -> str:
    """Return the lines of the whole log that a reader needs, without times and places."""
    text = whole.read_text(errors="replace").replace(str(work), "WORK").replace("\r", "\n")
    lines = (re.sub(r"^\d{4}-\d\d-\d\d [\d:.]+: ", "", line).strip("# ") for line in text.splitlines())
    return "\n".join(line for line in lines if KEPT.search(line)) + "\n"


def main() -> None:
    """Run everything and write JSON and log."""
    asked = tyro.cli(Options)
    work = asked.work.resolve()
    (work / "programs").mkdir(parents=True, exist_ok=True)
    for name in (*MADE, f"nnUNet_raw/{MIXED}"):
        shutil.rmtree(work / name, ignore_errors=True)
    sets(work)
    whole = work / "whole.log"
    whole.unlink(missing_ok=True)
    programs = Programs(work / "programs", whole)
    hand_over(programs, work, asked.folds)
    both = scored(programs, work, asked.folds)
    stream(programs, work)
    report = arms(programs, work)
    names = ("nnunetv2", "torch", "torchvision", "timm", "batchgenerators", "batchgeneratorsv2", "numpy", "synthvol")
    result = {
        "command": command_line("nnunet_run", WORK=asked.work),
        "machine": {"python": platform.python_version(), "system": platform.platform(), "cores": os.cpu_count()},
        "versions": {name: version(name) for name in names},
        "shortened": {"environment": ENVIRONMENT, "length": LENGTH, "words_added": SMALL},
        "plan": plans(work),
        "runs": [{**one, "command": one["command"].replace(str(work), "WORK")} for one in programs.runs],
        "trainings": checked(work),
        "largest_difference_of_sample_0_streamed_and_from_its_file": same_sample(work),
        "compared": {
            name: {"verdicts": one["verdicts"], "metrics": one["metrics"]}
            for name, one in (("validation", both), ("test", report))
        },
    }
    asked.out.write_text(json.dumps(result, indent=1) + "\n")
    asked.log.write_text(kept(whole, work))


if __name__ == "__main__":
    sys.exit(main())
