"""python -m tests.stream.loop MODEL DATA BUFFER OUT [--kill STEP] [--resume] [--by NAME]: a small training loop around a stream.

Under a launcher it is one of several ranks. After every step it appends "epoch step case:index:digest ..." to
OUT/rank<r>.txt and saves its state; with --kill it ends like a crash once STEP steps are done.
"""

import argparse
import hashlib
import json
import os
import signal
from pathlib import Path

import torch
from torch import distributed

import synth
from synth.stream import Balanced

EPOCHS = 2


def main() -> None:
    """Train nothing, note everything."""
    parser = argparse.ArgumentParser()
    for name in ("model", "data", "buffer", "out"):
        parser.add_argument(name)
    parser.add_argument("--kill", type=int, default=-1)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--by", default="kind")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if "RANK" in os.environ:
        distributed.init_process_group("gloo")
    rank = distributed.get_rank() if distributed.is_initialized() else 0
    stream = synth.Stream(
        options.model,
        real=options.data,
        ratio=0.5,
        reuse=2,
        buffer=options.buffer,
        batch=4,
        epoch_steps=5,
        depth=2,
        policy=Balanced(by=(options.by,)),
        sampling=synth.Sampling(steps=1),
    )
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    place, begun = out / f"state{rank}.json", 0
    if options.resume:
        state = json.loads(place.read_text())
        stream.load_state_dict(state)
        begun = state["epoch"]
    loader = stream.loader(options.workers)
    with (out / f"rank{rank}.txt").open("a") as notes:
        for epoch in range(begun, EPOCHS):
            stream.set_epoch(epoch)
            for batch in loader:
                state = stream.state_dict()
                said = [
                    f"{case}:{int(index)}:{hashlib.sha256(image.numpy().tobytes() + mask.numpy().tobytes()).hexdigest()[:12]}"
                    for case, index, image, mask in zip(batch["case"], batch["index"], batch["image"], batch["mask"])
                ]
                print(epoch, state["step"], *said, file=notes, flush=True)
                place.write_text(json.dumps(state))
                if distributed.is_initialized():
                    distributed.barrier()
                if epoch * 5 + state["step"] == options.kill:
                    os.kill(os.getpid(), signal.SIGKILL)
    if distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    main()
