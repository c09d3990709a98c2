"""Train the judge that ships with brain-tiny, on a cohort its generator never saw.

synth cohort --out COHORT --count 240 --seed 2
synth prepare COHORT --out DATA --holdout 0.15 --test 0
python -m benchmarks.train_judge DATA evaluation/assets/brain-tiny-judge [--record]

--record trains nothing: it writes who trained the judge that is there (patients.json, salted hashes) and its Dice by
held-out patient, once its mean Dice on them is found to be the one it was saved with, so that DATA is what it was
trained on.
"""

import json
import sys
from pathlib import Path

import numpy as np

from evaluation.functional import dice
from evaluation.segmenter import Segmenter, load_judge
from pipelines.judges import BY_PATIENT, keep_segmenter, train_bench
from synth.data.prepared import Prepared
from synth.data.seen import SEEN_FILE, Seen
from synth.errors import DataError
from synth.io import write_bytes

STEPS = 2400
TRAINED_ON = "synth cohort --count 240 --seed 2; synth prepare --holdout 0.15 --test 0"
_SAME = 0.005


def main(data: str, out: str) -> None:
    """Train on the training split, score on the rest, write the judge folder."""

    def report(done: int, total: int, loss: float) -> None:
        if done % 50 == 0:
            print(f"{done}/{total} loss {loss:.4f}", flush=True)

    prepared = Prepared.load(data)
    model, facts = train_bench(prepared, steps=STEPS, report=report)
    command = "python -m benchmarks.train_judge DATA evaluation/assets/brain-tiny-judge"
    facts |= {"command": command, "trained_on": TRAINED_ON, BY_PATIENT: by_patient(model, prepared)}
    keep_segmenter(model, Path(out), facts, Seen.of(prepared, seed=0).trained())
    print(facts["held_out_dice"], facts["held_out_class_accuracy"])


def by_patient(model: Segmenter, prepared: Prepared) -> list[dict[str, float]]:
    """Return Dice of the labels that each held-out case has, a row for each; each is a patient of its own."""
    numbers = {name: number for number, name in enumerate(model.config.labels, start=1)}
    rows = []
    for case in prepared.held_out:
        mask = prepared.mask(case)
        there = {name: number for name, number in numbers.items() if (mask == number).any()}
        scores = dice(model.label(prepared.image(case))[0], mask, labels=list(there.values()))
        rows.append({name: round(float(score), 6) for name, score in zip(there, scores, strict=True)})
    return rows


def record(data: str, out: str) -> None:
    """Write who trained the judge in `out`, and its Dice by patient.

    Errors: DataError where it does otherwise on DATA than it says.
    """
    prepared = Prepared.load(data)
    model, facts = load_judge(Path(out))
    rows = by_patient(model, prepared)
    told = facts["held_out_dice"]
    assert isinstance(told, dict)
    found = {name: float(np.mean([row[name] for row in rows if name in row])) for name in told}
    if len(rows) != facts["held_out_n"] or any(abs(found[name] - told[name]) > _SAME for name in told):
        raise DataError(f"{out} reaches {found} on {len(rows)} held-out cases of {data}, and says {told} of itself")
    seen = Seen.of(prepared, seed=0).trained().of_model(str(facts["weights_sha256"]))
    write_bytes(Path(out) / SEEN_FILE, seen.dump())
    whole = json.dumps({**facts, BY_PATIENT: rows}, indent=1, sort_keys=True) + "\n"
    write_bytes(Path(out) / "judge.json", whole.encode())


if __name__ == "__main__":
    (record if "--record" in sys.argv[3:] else main)(sys.argv[1], sys.argv[2])
