"""Train the judge that ships with brain-tiny, on a cohort its generator never saw.

synth cohort --out COHORT --count 240 --seed 2
synth prepare COHORT --out DATA --holdout 0.15 --test 0
python -m benchmarks.train_judge DATA evaluation/assets/brain-tiny-judge
"""

import sys
from pathlib import Path

from evaluation.segmenter import save_judge
from pipelines.judges import train_bench
from synth.data.prepared import Prepared

STEPS = 2400


def main(data: str, out: str) -> None:
    """Train on the training split, score on the rest, write the judge folder."""

    def report(done: int, total: int, loss: float) -> None:
        if done % 50 == 0:
            print(f"{done}/{total} loss {loss:.4f}", flush=True)

    model, facts = train_bench(Prepared.load(data), steps=STEPS, report=report)
    command = "python -m benchmarks.train_judge DATA evaluation/assets/brain-tiny-judge"
    save_judge(model, Path(out), facts={**facts, "command": command})
    print(facts["held_out_dice"], facts["held_out_class_accuracy"])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
