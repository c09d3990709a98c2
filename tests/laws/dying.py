"""Acts that are killed in forked children, each at one of its file operations, and completed; a script and its parts.

python -m tests.laws.dying ACT WORK [STEP] prints {"points": how many operations there are, "killed": how many died,
"differs": {point: files}} for every STEP-th operation.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_EVENTS = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_TIMES = ("timing.jsonl", "tensorboard")


def die_at(point: int, folder: Path) -> None:
    """Kill this process before its file operation number `point` (from 1) under `folder`."""
    left = [point]

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _EVENTS or not str(arguments[0]).startswith(str(folder)):
            return
        if event == "open" and not (arguments[2] & _WRITES) or any(part in str(arguments[0]) for part in _TIMES):
            return
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def files(folder: Path) -> dict[str, bytes]:
    """Return every file but times, hidden ones too."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and not set(_TIMES) & set(path.parts))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def forked(act: Callable[[Path], object], folder: Path, point: int = 0) -> bool:
    """Run `act` in a child; return True where it was killed. Errors: RuntimeError where it failed of itself."""
    child = os.fork()
    if child == 0:
        try:
            if point:
                die_at(point, folder)
            act(folder)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(f"point {point}: the act failed")
    return os.WIFSIGNALED(status)


def killed_everywhere(act: Callable[[Path], object], begin: Callable[[Path], object], work: Path, step: int) -> Any:
    """Kill `act` at every `step`-th operation, on a folder that `begin` made, complete it, compare with the whole."""
    whole = work / "whole"
    begin(whole)
    act(whole)  # in this process: what it imports, children find there
    expected, killed, differs, point = files(whole), 0, {}, 1
    while True:
        folder = work / "cut"
        shutil.rmtree(folder, ignore_errors=True)
        begin(folder)
        if not forked(act, folder, point):
            return {"points": point, "killed": killed, "differs": differs}
        killed += 1
        forked(act, folder)
        own = files(folder)
        wrong = sorted(name for name in {*own, *expected} if own.get(name) != expected.get(name))
        differs.update({point: wrong} if wrong else {})
        point += step


def acts(work: Path) -> dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]]:
    """Return each act with what stands before it; `work` holds model/, data/ and tiny.yaml."""
    import torch

    from pipelines.generate import Generate
    from pipelines.train import Train
    from synth.generator import load, save
    from tests.training import tiny

    torch.set_num_threads(1)
    generator = load(work / "model")

    def generate(folder: Path) -> None:
        Generate(model=str(work / "model"), out=folder / "set", count=2, workers=1).run()

    def extend(folder: Path) -> None:
        Generate(model=str(work / "model"), out=folder / "set", count=3, workers=1).run()

    def train(folder: Path) -> None:
        Train(config=str(work / "tiny.yaml"), data=work / "data", out=folder / "run").run()

    def fit(folder: Path) -> None:
        tiny.fit(tiny.task(), tiny.config(steps=6), folder / "fit", seed=0)

    def rewrite(folder: Path) -> None:
        save(generator, folder / "model")

    return {
        "generate": (generate, lambda folder: folder.mkdir()),
        "extend": (extend, lambda folder: (folder.mkdir(), generate(folder))),
        "train": (train, lambda folder: folder.mkdir()),
        "fit": (fit, lambda folder: folder.mkdir()),
        "model": (rewrite, lambda folder: (folder.mkdir(), rewrite(folder))),
    }


if __name__ == "__main__":
    place = Path(sys.argv[2])
    chosen, before = acts(place)[sys.argv[1]]
    found = killed_everywhere(chosen, before, place, int(sys.argv[3]) if len(sys.argv) > 3 else 1)
    print("\n" + json.dumps(found))
