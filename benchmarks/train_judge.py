"""Train the judge that ships with brain-tiny, on a cohort its generator never saw.

synth cohort --out COHORT --count 240 --seed 2
synth prepare COHORT --out DATA --holdout 0.15 --test 0
python -m benchmarks.train_judge DATA evaluation/assets/brain-tiny-judge [--record]

--record trains nothing: it writes who trained the judge that is there (patients.json, salted hashes) once its Dice on
the held-out cases of DATA is found to be the one it was saved with, so that DATA is what it was trained on.
"""

import sys
from pathlib import Path

from evaluation.segmenter import Example, load_judge, score_by_label
from pipelines.judges import keep_segmenter, train_bench
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
    facts |= {"command": command, "trained_on": TRAINED_ON}
    keep_segmenter(model, Path(out), facts, Seen.of(prepared, seed=0).trained())
    print(facts["held_out_dice"], facts["held_out_class_accuracy"])


def record(data: str, out: str) -> None:
    """Write who trained the judge in `out`. Errors: DataError where it does otherwise on DATA than it says."""
    prepared = Prepared.load(data)
    model, facts = load_judge(Path(out))
    examples = [Example(prepared.image(case), prepared.mask(case)) for case in prepared.held_out]
    found, _ = score_by_label(model, examples)
    told = facts["held_out_dice"]
    assert isinstance(told, dict)
    if len(examples) != facts["held_out_n"] or any(abs(found[name] - told[name]) > _SAME for name in told):
        raise DataError(f"{out} reaches {found} on {len(examples)} held-out cases of {data}, and says {told} of itself")
    seen = Seen.of(prepared, seed=0).trained().of_model(str(facts["weights_sha256"]))
    write_bytes(Path(out) / SEEN_FILE, seen.dump())


if __name__ == "__main__":
    (record if "--record" in sys.argv[3:] else main)(sys.argv[1], sys.argv[2])
