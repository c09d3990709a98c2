"""The training loop. Data order and randomness are functions of the step alone, so that a resumed run is the
uninterrupted one bit for bit. Knows no codec, no flow and no dataset."""

import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from synth.errors import CheckpointError, ConfigError, Interrupted, SynthError
from synth.precision import brain_float
from synth.rng import torch_rng
from synth.training.config import FitConfig
from synth.training.ema import MovingAverage
from synth.training.log import SilentLog, TrainLog
from synth.training.schedule import learning_rate
from synth.training.state import has_state, load_state, mend_folder, save_state, write_json
from synth.training.team import ALONE, Team, accelerator

Loss = Callable[[nn.Module, Any, torch.Generator], Mapping[str, Tensor]]
Report = Callable[[int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class Task:
    """What a stage trains: a module, its per-sample loss terms, its batches by step, its hold-out score.

    loss      terms (batch,) each, of (module, batch, rng); they are averaged and summed
    batch     a pure function of the number of the batch: step * accumulation + part
    validate  named figures of the averaged weights; "score" among them (lower is better) chooses the checkpoint
    preview   where given, called with the number of steps done after each validation
    settings  what else decides the weights (batch sizes, codec, data); a run goes on only with equal ones
    """

    name: str
    module: nn.Module
    loss: Loss
    batch: Callable[[int], Any]
    validate: Callable[[], Mapping[str, float]]
    preview: Callable[[int], None] | None = None
    settings: Mapping[str, object] = field(default_factory=dict)


def fit(
    task: Task, config: FitConfig, folder: Path, *, seed: int, report: Report | None = None, team: Team = ALONE
) -> str | None:
    """Train `task` in `folder` to its end, resuming what is there; afterwards the module holds its best average.

    Returns in words why the stage ended before its last step, else None. The processes of a team share the
    `accumulation` batches of each step; all start from the leader's weights, and the folder must be one for all.

    Files: train.jsonl (no times: equal for equal runs), timing.jsonl, last/, best/, config.json, done.json.
    Errors: ConfigError when the folder was begun with another config, or the team cannot share the batches or is not
    all there; SynthError when a loss, a gradient or the hold-out score is no number (the last checkpoint stays).
    Raises Interrupted after a checkpoint on SIGINT, SIGTERM or SIGUSR1.
    """
    if config.accumulation % team.size:
        raise ConfigError(
            f"fit.accumulation is {config.accumulation}, {team.size} processes share its batches; give a multiple of "
            f"{team.size}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    _same_config(folder / "config.json", {**task.settings, **asdict(config), "seed": seed}, team)
    _lead(task.module, team)
    trained = Trained(task, config, seed, team)
    for place in ("last", "best") if team.leads else ():
        mend_folder(folder / place)
    team.wait()
    if not (folder / "done.json").is_file():
        with _stop_signals() as stopped:
            end = _train(trained, folder, lambda: team.any(stopped()), report)
            early = end.words(task.name, config) if end.step < config.steps else None
            if team.leads:
                write_json(folder / "done.json", {"steps": end.step, "best": end.best, "early": early})
            if team.any(stopped()):
                raise Interrupted(f"stage {task.name} is complete; run again to go on after it")
        team.wait()
    trained.load(folder / "best")
    trained.average.swap(task.module)
    return json.loads((folder / "done.json").read_text()).get("early")


def _lead(module: nn.Module, team: Team) -> None:
    """Give every process the leader's weights: replicas that start apart would stay apart, as they share gradients."""
    if team.size > 1:
        with torch.no_grad():
            for tensor in module.state_dict().values():
                tensor.copy_(team.led(tensor))


@dataclass(frozen=True)
class _Standing:
    """How far a run is: steps done, the best hold-out score and the step it was reached at, the latest score."""

    step: int = 0
    best: float = math.inf
    best_step: int = 0
    latest: float = math.inf

    def validated(self, step: int, score: float) -> "_Standing":
        if score <= self.best:
            return _Standing(step, score, step, score)
        return replace(self, step=step, latest=score)

    def spent(self, config: FitConfig) -> bool:
        """True once `patience` validations in a row were no better."""
        return config.patience > 0 and self.step - self.best_step >= config.patience * config.validate_every

    def words(self, name: str, config: FitConfig) -> str:
        return (
            f"stage {name}: the hold-out score was best at step {self.best_step} ({self.best:.4g}) and is "
            f"{self.latest:.4g} now; it begins to memorise, so it ended at step {self.step} of {config.steps} and the "
            f"weights of step {self.best_step} are kept"
        )


class Trained:
    """A module in training: optimiser, average and precision around it. One `step` is one optimiser step."""

    def __init__(self, task: Task, config: FitConfig, seed: int, team: Team = ALONE) -> None:
        self.task, self.config, self.seed, self.team = task, config, seed, team
        self.device = next(task.module.parameters()).device
        self.average = MovingAverage(task.module, config.ema)
        self.optimizer = torch.optim.AdamW(
            task.module.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=config.weight_decay
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        self.accelerator: Any = None

    def step(self, step: int) -> dict[str, float]:
        """Take optimiser step number `step` (from 0) and return its figures.

        Errors: SynthError when loss or gradient is no number; weights and average are then as before.
        """
        task, config = self.task, self.config
        if self.accelerator is None:
            self.accelerator = accelerator(cpu=self.device.type == "cpu")
        rate = learning_rate(config, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        totals: dict[str, float] = {}
        task.module.train()
        for part in self.team.share(range(config.accumulation)):
            rng = torch_rng(self.seed, task.name, step, part)
            with self._precision():
                terms = task.loss(task.module, task.batch(step * config.accumulation + part), rng)
                loss = torch.stack([value.mean() for value in terms.values()]).sum() / config.accumulation
            self.accelerator.backward(self.scaler.scale(loss))
            for name, value in terms.items():
                totals[name] = totals.get(name, 0.0) + float(value.detach().mean()) / config.accumulation
        if self.team.size > 1:
            totals = self._summed(totals)
        self.scaler.unscale_(self.optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(task.module.parameters(), config.clip))
        figures = {"loss": sum(totals.values()), **totals, "norm": norm, "rate": rate}
        if self._overflowed(norm):
            figures = {**figures, "norm": 0.0, "skipped": 1.0}
        for name in ("loss", "norm"):
            if not math.isfinite(figures[name]):
                raise self.broken("loss" if name == "loss" else "gradient norm", figures[name], step)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(task.module, step)
        return {**figures, "scale": self.scaler.get_scale()} if self.scaler.is_enabled() else figures

    def _overflowed(self, norm: float) -> bool:
        """True where fp16 overflowed in the gradient: the scaler then skips the step and lowers its scale."""
        return self.scaler.is_enabled() and not math.isfinite(norm) and self.scaler.get_scale() >= 1.0

    def validate(self, step: int) -> dict[str, float]:
        """Return the hold-out figures of the averaged weights after step number `step`, and show a preview."""
        figures: dict[str, float] = {}
        if self.team.leads:
            self.average.swap(self.task.module)
            self.task.module.eval()
            with torch.no_grad():
                figures = dict(self.task.validate())
                if self.task.preview is not None:
                    self.task.preview(step + 1)
            self.average.swap(self.task.module)
        figures = self.team.told(figures)
        if not math.isfinite(figures["score"]):
            raise self.broken("hold-out score", figures["score"], step)
        return figures

    def save(self, folder: Path, state: dict[str, object]) -> None:
        """Write a checkpoint; of a team, the leader does."""
        if not self.team.leads:
            return
        if self.scaler.is_enabled():
            state = {**state, "scaler": self.scaler.state_dict()}
        save_state(folder, module=self.task.module, optimizer=self.optimizer, average=self.average, state=state)

    def load(self, folder: Path) -> dict[str, object]:
        """Take up a checkpoint and return its state."""
        state = load_state(folder, module=self.task.module, optimizer=self.optimizer, average=self.average)
        scaler = state.get("scaler")
        if self.scaler.is_enabled() and isinstance(scaler, dict):
            self.scaler.load_state_dict(scaler)
        return state

    def broken(self, what: str, value: float, step: int) -> SynthError:
        """Return the error that stops a run whose figures are no numbers."""
        return SynthError(
            f"stage {self.task.name}: the {what} is {value} at step {step}; the last checkpoint is kept; "
            "lower fit.learning_rate and give another --out"
        )

    def _summed(self, totals: Mapping[str, float]) -> dict[str, float]:
        """Sum gradients and figures over the team; a parameter without a gradient anywhere keeps having none."""
        parameters = list(self.task.module.parameters())
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        used = torch.tensor([float(p.grad is not None) for p in parameters], device=self.device)
        sums = self.team.total(torch.cat([*(grad.flatten() for grad in grads), used]))
        *parts, used = sums.split([*(p.numel() for p in parameters), len(parameters)])
        for parameter, part, users in zip(parameters, parts, used.tolist(), strict=True):
            parameter.grad = part.reshape(parameter.shape).clone() if users else None
        values = self.team.total(torch.tensor(list(totals.values()), dtype=torch.float64, device=self.device))
        return dict(zip(totals, values.tolist(), strict=True))

    def _precision(self) -> Any:
        if self.config.precision == "fp32":
            return nullcontext()
        if self.config.precision == "fp16":
            return torch.autocast(self.device.type, dtype=torch.float16)
        return brain_float(self.device)


def _train(trained: Trained, folder: Path, stopped: Callable[[], bool], report: Report | None) -> _Standing:
    """Run the steps that are left and return where it ended."""
    config, team = trained.config, trained.team
    there = accelerator(cpu=trained.device.type == "cpu").num_processes
    if there != team.size:
        raise ConfigError(f"{there} processes train one model as a team of {team.size}; start `synth train` for all")
    now = _Standing()
    if has_state(folder / "last"):
        now = _reached(trained.load(folder / "last"), folder / "last")
    if now.spent(config):  # a kill between the end and done.json
        return now
    log = TrainLog(folder, first=now.step) if team.leads else SilentLog()
    try:
        for step in range(now.step, config.steps):
            started = time.perf_counter()
            figures = trained.step(step)
            now = replace(now, step=step + 1)
            last = now.step == config.steps
            if step % config.log_every == 0 or last:
                log.write({"step": step, **figures}, seconds=time.perf_counter() - started)
            if now.step % config.validate_every == 0 or last:
                now = _validated(trained, now, log, folder)
                last = last or now.spent(config)
            if report is not None:
                report(now.step, config.steps, figures)
            stop = stopped() and not last
            if now.step % config.checkpoint_every == 0 or last or stop:
                log.flush()
                trained.save(folder / "last", asdict(now))
            if stop:
                done = f"{now.step} of {config.steps}"
                raise Interrupted(f"stage {trained.task.name} stopped at step {done}; run again to resume")
            if last:
                break
    finally:
        log.close()
    return now


def _validated(trained: Trained, now: _Standing, log: TrainLog | SilentLog, folder: Path) -> _Standing:
    """Score the averaged weights, and keep them where they are the best so far."""
    started = time.perf_counter()
    held = trained.validate(now.step - 1)
    seconds = time.perf_counter() - started
    log.write({"step": now.step - 1, **{f"holdout.{k}": v for k, v in held.items()}}, seconds=seconds)
    now = now.validated(now.step, float(held["score"]))
    if now.best_step == now.step:
        trained.save(folder / "best", asdict(now))
    return now


def _reached(state: dict[str, Any], folder: Path) -> _Standing:
    """Return where a checkpoint stands."""
    try:
        step, best = int(state["step"]), float(state["best"])
        return _Standing(step, best, int(state.get("best_step", 0)), float(state.get("latest", math.inf)))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint {folder} does not say how far it came ({error!r}); delete it to start this stage anew"
        ) from error


def _same_config(path: Path, now: dict[str, Any], team: Team) -> None:
    """Write the config of a new run; refuse another one for a run that was begun.

    A field that the file does not know yet counts as its default, a setting as equal.
    """
    now = json.loads(json.dumps(now))  # as it comes back: tuples as lists
    if not path.is_file():
        if team.leads:
            write_json(path, now)
        return
    try:
        before = {**now, **asdict(FitConfig()), **json.loads(path.read_text())}
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is not a training config ({error}); give another --out") from error
    for name in sorted(now):
        if before.get(name) != now[name]:
            raise ConfigError(
                f"{path.parent} was begun with {name} = {before.get(name)}, now it is {now[name]}; "
                "resume with the same config or give another --out"
            )


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
