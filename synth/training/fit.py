"""The training loop. Data order and randomness are functions of the step alone, so that a resumed run is the
uninterrupted one bit for bit."""

import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from synth.errors import ConfigError, Interrupted, SynthError
from synth.rng import torch_rng
from synth.training.config import FitConfig
from synth.training.ema import MovingAverage
from synth.training.state import has_state, load_state, save_state

Loss = Callable[[nn.Module, Any, torch.Generator], Mapping[str, Tensor]]
Report = Callable[[int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Task:
    """What a stage trains: a module, its per-sample loss terms, its batches by step, its hold-out score.

    validate returns named figures, "score" among them (lower is better) chooses the checkpoint.
    preview, where given, is called with the step after each validation.
    """

    name: str
    module: nn.Module
    loss: Loss
    batch: Callable[[int], Any]
    validate: Callable[[], Mapping[str, float]]
    preview: Callable[[int], None] | None = None


def learning_rate(config: FitConfig, step: int) -> float:
    """Return the rate of step `step`: linear warm-up, then a cosine down to `final` of the peak."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    done = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.learning_rate * (config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


def fit(task: Task, config: FitConfig, folder: Path, *, seed: int, report: Report | None = None) -> None:
    """Train `task` in `folder` to its end, resuming what is there; afterwards the module holds its best average.

    Files: train.jsonl (no times: equal for equal runs), timing.jsonl, last/, best/, done.json.
    Errors: ConfigError when the folder was begun with another config; SynthError when the loss is no number.
    Raises Interrupted after a checkpoint on SIGINT, SIGTERM or SIGUSR1.
    """
    from accelerate import Accelerator

    folder.mkdir(parents=True, exist_ok=True)
    _same_config(folder / "config.json", {**asdict(config), "seed": seed})
    optimizer = torch.optim.AdamW(
        task.module.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=config.weight_decay
    )
    average = MovingAverage(task.module, config.ema)
    if (folder / "done.json").is_file():
        load_state(folder / "best", module=task.module, optimizer=optimizer, average=average)
        average.swap(task.module)
        return
    accelerator = Accelerator(
        mixed_precision="no" if config.precision == "fp32" else "bf16", cpu=not torch.cuda.is_available()
    )
    first, best = 0, math.inf
    if has_state(folder / "last"):
        state = load_state(folder / "last", module=task.module, optimizer=optimizer, average=average)
        first, best = int(state["step"]), float(state["best"])  # pyright: ignore[reportArgumentType]
    log = _Log(folder, first)
    with _stop_signals() as stopped:
        for step in range(first, config.steps):
            started = time.perf_counter()
            figures = _step(task, config, accelerator, optimizer, step, seed)
            average.update(task.module, step)
            last = step + 1 == config.steps
            if not math.isfinite(figures["loss"]):
                raise SynthError(
                    f"stage {task.name}: the loss is {figures['loss']} at step {step}; lower fit.learning_rate"
                )
            if step % config.log_every == 0 or last:
                log.write({"step": step, **figures}, time.perf_counter() - started)
            if (step + 1) % config.validate_every == 0 or last:
                score = _validate(task, average, step, log)
                if score <= best:
                    best = score
                    save_state(
                        folder / "best",
                        module=task.module,
                        optimizer=optimizer,
                        average=average,
                        state={"step": step + 1, "best": best},
                    )
            if report is not None:
                report(step + 1, config.steps, figures)
            if (step + 1) % config.checkpoint_every == 0 or last or stopped():
                log.flush()
                save_state(
                    folder / "last",
                    module=task.module,
                    optimizer=optimizer,
                    average=average,
                    state={"step": step + 1, "best": best},
                )
            if stopped() and not last:
                raise Interrupted(
                    f"stage {task.name} stopped at step {step + 1} of {config.steps}; run again to resume"
                )
    (folder / "done.json").write_text(json.dumps({"steps": config.steps, "best": best}))
    load_state(folder / "best", module=task.module, optimizer=optimizer, average=average)
    average.swap(task.module)


def _step(
    task: Task, config: FitConfig, accelerator: Any, optimizer: torch.optim.Optimizer, step: int, seed: int
) -> dict[str, float]:
    rate = learning_rate(config, step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    totals: dict[str, float] = {}
    task.module.train()
    for part in range(config.accumulation):
        rng = torch_rng(seed, task.name, step, part)
        with accelerator.autocast():
            terms = task.loss(task.module, task.batch(step * config.accumulation + part), rng)
            loss = torch.stack([value.mean() for value in terms.values()]).sum() / config.accumulation
        accelerator.backward(loss)
        for name, value in terms.items():
            totals[name] = totals.get(name, 0.0) + float(value.detach().mean()) / config.accumulation
    norm = torch.nn.utils.clip_grad_norm_(task.module.parameters(), config.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {"loss": sum(totals.values()), **totals, "norm": float(norm), "rate": rate}


def _validate(task: Task, average: MovingAverage, step: int, log: "_Log") -> float:
    average.swap(task.module)
    task.module.eval()
    with torch.no_grad():
        figures = task.validate()
        if task.preview is not None:
            task.preview(step + 1)
    average.swap(task.module)
    log.write({"step": step, **{f"holdout.{k}": v for k, v in figures.items()}}, 0.0)
    return float(figures["score"])


def _same_config(path: Path, now: dict[str, Any]) -> None:
    if not path.is_file():
        path.write_text(json.dumps(now, sort_keys=True))
        return
    before = json.loads(path.read_text())
    for name in sorted(now):
        if before.get(name) != now[name]:
            raise ConfigError(
                f"{path.parent} was begun with {name} = {before.get(name)}, now it is {now[name]}; "
                "resume with the same config or give another --out"
            )


class _Log:
    """train.jsonl, cut back to the checkpoint on resume, and timing.jsonl beside it."""

    def __init__(self, folder: Path, first: int) -> None:
        self.path, self.timing = folder / "train.jsonl", folder / "timing.jsonl"
        lines = self.path.read_text().splitlines() if self.path.is_file() else []
        kept = []
        for line in lines:
            try:
                if json.loads(line)["step"] < first:
                    kept.append(line)
            except (json.JSONDecodeError, KeyError):
                break  # the half line of a killed run
        self.path.write_text("".join(f"{line}\n" for line in kept))
        self.tracker = _tensorboard(folder)

    def write(self, figures: Mapping[str, float], seconds: float) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(figures) + "\n")
        with self.timing.open("a") as file:
            file.write(json.dumps({"step": figures["step"], "seconds": round(seconds, 4)}) + "\n")
        if self.tracker is not None:
            for name, value in figures.items():
                self.tracker.add_scalar(name, value, int(figures["step"]))

    def flush(self) -> None:
        if self.tracker is not None:
            self.tracker.flush()


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"))


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    """Turn SIGINT, SIGTERM and SIGUSR1 into a flag for the loop; only the main thread may set handlers."""
    flags: list[int] = []
    previous: dict[int, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            previous[number] = signal.signal(number, lambda received, _frame: flags.append(received))
    except ValueError:
        pass
    try:
        yield lambda: bool(flags)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
