"""Schedulers of diffusers as samplers: their loop drives a denoiser. Knows no network and no file.

A scheduler keeps its own times and its own form of the state; here it meets a process by what both mean, the noise
level. Three forms are known: variance-preserving (x = sqrt(a) clean + sqrt(1 - a) noise once scaled by
scale_model_input), flow matching (x = (1 - s) clean + s noise) and EDM (x = clean + s noise).
"""

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from synth.errors import ConfigError, nearest
from synth.process import EDM, GaussianProcess, RectifiedFlow, VariancePreserving

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from synth.denoiser import Denoise
    from synth.process import Estimate

Form = Literal["variance_preserving", "flow", "edm"]
_PREDICTIONS = {"velocity": "v_prediction", "noise": "epsilon", "clean": "sample"}
# Two tables of alpha-bar this close are one law: diffusers computes its own in float32.
_SAME_LAW = 1e-6
# A terminal alpha-bar of exactly 0 has no log-SNR; this is as little.
_LEAST = 1e-24


@dataclass(frozen=True, eq=False)
class DiffusersSampler:
    """A sampler that runs a diffusers scheduler, as diffusers' own pipelines do.

    `scheduler` is only read: each call runs a fresh one of its configuration, since schedulers keep state. Where the
    scheduler's law and prediction are the process's own, the network is given exactly what diffusers would give it,
    and its prediction is passed on as it is; otherwise the time is the one of equal log-SNR and the state is rescaled.
    Of the times handed over only their number counts: the scheduler sets its own.

    >>> from synth.process import VariancePreserving
    >>> DiffusersSampler(scheduler_for(VariancePreserving(), "DDIMScheduler")).kind
    'diffusers.DDIMScheduler'
    """

    scheduler: Any

    def __post_init__(self) -> None:
        form_of(self.scheduler)

    @property
    def kind(self) -> str:
        """What a sample's provenance says."""
        return f"diffusers.{type(self.scheduler).__name__}"

    @property
    def stochastic(self) -> bool:
        """True where its steps draw noise: tried in two short runs, since schedulers do not say."""
        import torch

        return not torch.equal(self._tried(0), self._tried(1))

    def evaluations(self, steps: int) -> int:
        """NFE of `steps` steps, as many as the scheduler sets times."""
        fresh = self._fresh()
        fresh.set_timesteps(steps)
        return len(fresh.timesteps)

    def steps_for(self, evaluations: int) -> int:
        """The most steps that stay within `evaluations`."""
        return max((n for n in range(1, evaluations + 1) if self.evaluations(n) <= evaluations), default=1)

    def __call__(self, denoise: "Denoise", times: "Tensor", x: "Tensor", rng: "torch.Generator | None") -> "Tensor":
        """Return the data that the scheduler reaches from x, pure noise of the process, in len(times) - 1 steps.

        Errors: ConfigError where x is not at the process's noisiest time.
        """
        process = denoise.process
        if float(times[0]) != process.t_start:
            raise ConfigError(
                f"{self.kind} starts at pure noise (t = {process.t_start:g}), not at t = {float(times[0]):g}; "
                "take a sampler of synth"
            )
        run = self._fresh()
        run.set_timesteps(len(times) - 1, device=x.device)
        bridge = _Bridge(run, process)
        x = bridge.start(x)
        extra = _generator(run, rng)
        for index, stamp in enumerate(run.timesteps):
            t, state = bridge.read(x, stamp, index)
            estimate = denoise(state, t, to=bridge.next_time(index))
            x = run.step(bridge.prediction(estimate, t), stamp, x, **extra).prev_sample
        return x

    def _tried(self, seed: int) -> "Tensor":
        """Return every state of a short run on zeros, its noise drawn from `seed`."""
        import torch

        run, x, states = self._fresh(), torch.zeros(1, 1, 2, 2), []
        run.set_timesteps(4)
        extra = _generator(run, torch.Generator().manual_seed(seed))
        with torch.random.fork_rng(devices=[]):  # some draw from the global generator
            torch.default_generator.manual_seed(seed)
            for stamp in run.timesteps:
                said = run.scale_model_input(x, stamp) if hasattr(run, "scale_model_input") else x
                x = run.step(torch.zeros_like(said), stamp, x, **extra).prev_sample
                states.append(x)
        return torch.stack(states)

    def _fresh(self) -> Any:
        return type(self.scheduler).from_config(self.scheduler.config)


def _generator(run: Any, rng: "torch.Generator | None") -> dict[str, Any]:
    """Return `rng` as the step of a scheduler takes it, where it does."""
    return {"generator": rng} if "generator" in inspect.signature(run.step).parameters else {}


def scheduler_for(process: GaussianProcess, name: str, options: Mapping[str, object] | None = None) -> Any:
    """Return the diffusers scheduler `name` with the law and prediction of `process`; `options` go on top.

    Variance-preserving processes suit DDIM, DDPM, DPMSolverMultistep, Euler, UniPC and their like; rectified flow
    suits FlowMatch..., EDM suits EDM...
    Errors: ConfigError without diffusers, for an unknown name, and for a process of another form.
    """
    try:
        import diffusers
    except ImportError as error:
        raise ConfigError("diffusers is not installed; pip install 'synthvol[diffusers]'") from error
    known = [found for found in dir(diffusers) if found.endswith("Scheduler")]
    if name not in known:
        raise ConfigError(f"diffusers has no scheduler {name!r}; {nearest(name, known)}")
    kind = getattr(diffusers, name)
    law = _law_options(process)
    accepted = inspect.signature(kind.__init__).parameters
    given = {key: value for key, value in law.items() if key in accepted}
    scheduler = kind(**{**given, **(options or {})})
    suits = {"variance_preserving": VariancePreserving, "flow": RectifiedFlow, "edm": EDM}[form_of(scheduler)]
    if not isinstance(process, suits):
        raise ConfigError(f"{name} has another noise law than {type(process).__name__}; give its scheduler yourself")
    return scheduler


def form_of(scheduler: Any) -> Form:
    """Return the form of a scheduler's state; ConfigError where it is none of the known."""
    name = type(scheduler).__name__
    if name.startswith("EDM"):
        return "edm"
    if name.startswith("FlowMatch"):
        return "flow"
    if hasattr(scheduler, "alphas_cumprod") and scheduler.config.get("prediction_type") in _PREDICTIONS.values():
        return "variance_preserving"
    raise ConfigError(f"{name} is no Gaussian scheduler that is known here; take DDIM, DPMSolverMultistep, Euler, ...")


def _law_options(process: GaussianProcess) -> dict[str, object]:
    """Return the constructor arguments that give a scheduler the law of `process`."""
    if isinstance(process, VariancePreserving):
        return {
            "num_train_timesteps": process.train_steps,
            "trained_betas": process.beta_table(),
            "prediction_type": _PREDICTIONS[process.prediction],
            "clip_sample": False,
            "timestep_spacing": "trailing",
        }
    if isinstance(process, EDM):
        names = ("sigma_data", "sigma_min", "sigma_max", "rho")
        return {name: getattr(process, name) for name in names}
    return {"shift": getattr(process, "shift", 1.0)}


class _Bridge:
    """What passes between one run of a scheduler and a process: states, times and predictions."""

    def __init__(self, run: Any, process: GaussianProcess) -> None:
        self.run, self.process, self.form = run, process, form_of(run)
        self.same = self._same_law()

    def _same_law(self) -> bool:
        process = self.process
        if self.form == "edm":
            return isinstance(process, EDM) and process.sigma_data == self.run.config.sigma_data
        if self.form == "flow":
            return isinstance(process, RectifiedFlow)
        if not isinstance(process, VariancePreserving) or process.train_steps != len(self.run.alphas_cumprod):
            return False
        own = process.alpha(self._own_times(process.train_steps)) ** 2
        return float((self.run.alphas_cumprod.double() - own).abs().max()) < _SAME_LAW

    @staticmethod
    def _own_times(steps: int) -> "Tensor":
        import torch

        return torch.arange(1, steps + 1, dtype=torch.float64) / steps

    def start(self, x: "Tensor") -> "Tensor":
        """Return the scheduler's first state from the process's: unit noise times its own deviation."""
        scale = self.process.t_start if isinstance(self.process, EDM) else 1.0
        if self.form == "edm":
            return x if self.same and scale == self.run.config.sigma_max else x * (self.run.config.sigma_max / scale)
        return (x / scale) * getattr(self.run, "init_noise_sigma", 1.0)

    def read(self, x: "Tensor", stamp: "Tensor", index: int) -> "tuple[Tensor, Tensor]":
        """Return (t, x) as the denoiser takes them, from the scheduler's state at one of its times."""
        state = self.run.scale_model_input(x, stamp) if hasattr(self.run, "scale_model_input") else x
        if self.form == "edm":
            state = x  # the scheduler's own input scaling is the network's affair, and the process does it
        alpha, sigma, own = self._level(stamp, index)
        t = self._met(alpha, sigma, own)
        # by the noise, not by the signal: a flow starts where no signal is
        return t, state if self.same else state * float(self.process.sigma(t) / sigma)

    def _level(self, stamp: "Tensor", index: int) -> "tuple[Tensor, Tensor, Tensor]":
        """Return alpha, sigma and the time in the process's own convention, were the laws the same (float64)."""
        import torch

        if self.form == "variance_preserving":
            steps = len(self.run.alphas_cumprod)
            t = (stamp.double().cpu() + 1.0) / steps
            table = self.run.alphas_cumprod.double().cpu().clamp_min(_LEAST).log()
            place = stamp.double().cpu().clamp(0, steps - 1)
            low = place.floor().long()
            value = table[low] + (place - low) * (table[(low + 1).clamp_max(steps - 1)] - table[low])
            return (0.5 * value).exp(), (-value.expm1()).sqrt(), t
        sigma = torch.as_tensor(self.run.sigmas[index]).double().cpu()
        return (1.0 - sigma if self.form == "flow" else torch.ones_like(sigma)), sigma, sigma

    def next_time(self, index: int) -> "Tensor":
        """Return the time that step `index` leads to."""
        import torch

        stamps = self.run.timesteps
        if index + 1 >= len(stamps):
            return torch.zeros((), dtype=torch.float64)
        return self._met(*self._level(stamps[index + 1], index + 1))

    def _met(self, alpha: "Tensor", sigma: "Tensor", own: "Tensor") -> "Tensor":
        """Return the process's time at a level of the scheduler; beyond its noisiest, that one."""
        if self.same:
            return own
        return self.process.at_log_snr(2.0 * (alpha.log() - sigma.log())).clamp_max(self.process.t_start)

    def prediction(self, estimate: "Estimate", t: "Tensor") -> "Tensor":
        """Return what the scheduler wants to be told; the network's own prediction where that is it."""
        process = self.process
        if self.form == "edm":
            return estimate.raw if self.same else self._edm_prediction(estimate, t)
        if self.form == "flow":
            own = isinstance(process, RectifiedFlow) and process.prediction == "velocity"
            return estimate.raw if own else estimate.noise - estimate.clean
        wanted = self.run.config.prediction_type
        if self.same and isinstance(process, VariancePreserving) and _PREDICTIONS[process.prediction] == wanted:
            return estimate.raw
        if wanted == "epsilon":
            return estimate.noise
        if wanted == "sample":
            return estimate.clean
        snr = float(process.log_snr(t).exp())
        alpha, sigma = math.sqrt(snr / (1.0 + snr)), math.sqrt(1.0 / (1.0 + snr))
        return alpha * estimate.noise - sigma * estimate.clean

    def _edm_prediction(self, estimate: "Estimate", t: "Tensor") -> "Tensor":
        """Return F of Karras et al. 2022 for the scheduler's sigma_data, from the noise level t stands for."""
        level, data = math.exp(-0.5 * float(self.process.log_snr(t))), float(self.run.config.sigma_data)
        return (level / data * estimate.clean - data * estimate.noise) / math.hypot(level, data)
