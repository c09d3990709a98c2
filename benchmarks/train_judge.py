"""Train the judge that ships with brain-tiny, on a cohort its generator never saw.

synth cohort --out COHORT --count 240 --seed 2
synth prepare COHORT --out DATA --holdout 0.15 --test 0
python -m benchmarks.train_judge DATA evaluation/assets/brain-tiny-judge
"""

import sys
from pathlib import Path

from evaluation.segmenter import Example, SegmenterConfig, save_judge, score_by_label, train_segmenter
from synth.data.prepared import Prepared, PreparedCase

STEPS = 2400
ATTRIBUTE = "contrast"


def main(data: str, out: str) -> None:
    """Train on the training split, score on the rest, write the judge folder."""
    prepared = Prepared.load(data)

    def example(case: PreparedCase) -> Example:
        return Example(prepared.image(case), prepared.mask(case), str(case.attributes[ATTRIBUTE]))

    schema = prepared.schema
    classes = next(attribute.levels for attribute in schema.attributes if attribute.name == ATTRIBUTE)
    config = SegmenterConfig(
        channels=len(schema.channels),
        labels=tuple(label.name for label in schema.labels),
        attribute=ATTRIBUTE,
        classes=classes,
        spatial_dims=len(schema.grid),
    )
    train = [example(case) for case in prepared.split("train")]

    def report(done: int, total: int, loss: float) -> None:
        if done % 50 == 0:
            print(f"{done}/{total} loss {loss:.4f}", flush=True)

    model = train_segmenter(config, train, steps=STEPS, seed=0, report=report)
    held = [example(case) for split in ("holdout", "test") for case in prepared.split(split)]
    scores, recognised = score_by_label(model, held)
    facts: dict[str, object] = {
        "held_out_dice": scores,
        "held_out_class_accuracy": recognised,
        "held_out_n": len(held),
        "trained_n": len(train),
        "population": schema.population,
        "command": "python -m benchmarks.train_judge DATA evaluation/assets/brain-tiny-judge",
    }
    save_judge(model, Path(out), facts=facts)
    print(scores, recognised)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
