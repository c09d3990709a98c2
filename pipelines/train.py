"""synth train: every stage of a recipe, resumable, ending in a model folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    import torch

    from synth.data.prepared import Prepared
    from synth.model import Model
    from synth.recipe import Recipe
    from synth.training.plan import Estimate
    from synth.training.team import Team

AUTO, SAME = "auto", "same"
DEFAULT_BUDGET = "2h"
PLAN, ASKED = "plan.yaml", "plan.json"
"""A plan, and what was asked of it with what it will take."""
LAUNCHED = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
"""What launchers (torchrun, accelerate, mpirun) say in the environment of the processes they begin."""


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train codec, mask generator and image generator of CONFIG on prepared data; RUN/model is what to load.

    The same command again goes on from the last checkpoint. With --from, training starts from a model that is there:
    its networks stay as they are, its labels, attributes and words keep their meaning, those that are new to it are
    added by name. Its codecs are kept, but for labels that are new or where the recipe says codec_training.tune.

    `torchrun --nproc-per-node N -m pipelines train ...` trains in N processes that share the batches of each step.
    """

    config: Annotated[str, tyro.conf.Positional]
    """A recipe: a YAML file, the name of one that ships with the package, or `auto`: planned from the data.

    With --from, its networks must be the model's; `auto` takes them from there, `same` takes its whole recipe."""
    data: Path
    """A folder that `synth prepare` wrote."""
    out: Path
    """Folder of the run."""
    fold: int | None = None
    """Train on this fold's training patients (prepare --folds): its validation patients are never read."""
    source: Annotated[str | None, tyro.conf.arg(name="from", metavar="MODEL")] = None
    """Fine-tune this model: a model folder, a run, or the name of a bundled model."""
    budget: str | None = None
    """With `auto`: the time to fill, such as 20m or 2h; otherwise what the data was prepared for."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:i; auto takes a GPU where there is one. Of several processes each takes its own."""
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    """Of the forward passes of every stage; the recipe's own otherwise. A stage alone: --set ...fit.precision=bf16."""
    dry_run: bool = False
    """Time 20 steps of every stage, say hours and memory, and write nothing."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Dotted overrides of the recipe, such as image.training.fit.steps=200 (repeatable)."""

    def run(self) -> int:
        """Train every stage that is not done; of several processes (torchrun), the leader alone speaks and writes."""
        import contextlib
        import io
        import os

        from pipelines.machine import device_of
        from synth.training.team import ALONE, team_of_launch

        self._check_budget()
        team, device = ALONE, device_of(self.device)
        if any(int(os.environ.get(name) or 1) > 1 for name in LAUNCHED):
            team, device = team_of_launch(cpu=device.type == "cpu")
        if team.leads:
            return self._run(team, device)
        if self.dry_run:
            return 0
        with contextlib.redirect_stdout(io.StringIO()):
            return self._run(team, device)

    def _run(self, team: "Team", device: "torch.device") -> int:
        import time

        from pipelines.machine import in_words
        from synth import config
        from synth.data.prepared import Prepared
        from synth.recipe import Recipe
        from synth.training.experiment import Experiment
        from synth.training.plan import shared

        prepared = Prepared.load(self.data)
        if self.fold is not None:
            prepared = prepared.at_fold(self.fold)
        elif prepared.folds:
            print(f"{self.data} has {len(prepared.folds)} folds; without --fold no patient is kept for validation")
        source = self._source()
        if self.dry_run:
            recipe, estimate = self._recipe(prepared, source, device)
            _tell_precision(recipe, device)
            _tell(estimate or _measured(recipe, prepared, source, device), device)
            return 0
        planned = config.dump(self._recipe(prepared, source, device)[0]) if team.leads else ""
        recipe = config.load(Recipe, team.told(planned))
        _tell_precision(recipe, device)
        if shared(recipe, team.size) != recipe:
            recipe = shared(recipe, team.size)
            print(
                f"{team.size} processes share each step: fit.accumulation is a multiple of {team.size} in every stage"
            )
        started = time.monotonic()
        with _Bars(quiet=not team.leads) as bars:
            folder = Experiment(recipe, prepared, self.out, bars.stage, print, source, team, device).run()
        print(f"model in {folder} after {in_words(time.monotonic() - started)}")
        return 0

    def _check_budget(self) -> None:
        """Errors: ConfigError for a budget that is no duration, or where nothing is planned by one."""
        from pipelines.machine import seconds
        from synth.errors import ConfigError

        if self.budget is None:
            return
        if self.config != AUTO:
            raise ConfigError("--budget belongs to `synth train auto`; a recipe says its own steps")
        seconds(self.budget, "--budget")

    def _source(self) -> "Model | None":
        """Return the model to start from, and say where it does not tell whom it saw."""
        if self.source is None:
            return None
        from synth.generator import load

        model = load(self.source).model
        if model.seen is None:
            print(f"{self.source} does not record whom it was trained on; what is fine-tuned from it says so")
        return model

    def _recipe(
        self, prepared: "Prepared", source: "Model | None", device: "torch.device"
    ) -> "tuple[Recipe, Estimate | None]":
        """Return the recipe, and with `auto` what it will take; a run once planned keeps its plan."""
        from pipelines.configs import config_path
        from synth import config
        from synth.errors import ConfigError
        from synth.recipe import Recipe

        if self.config != AUTO:
            if self.config == SAME:
                from synth.training.finetune import continued
                from synth.training.plan import at_grid

                if source is None:
                    raise ConfigError("`same` is the recipe of the model to start from; give --from MODEL")
                same = at_grid(continued(source.recipe), prepared.schema)
                return config.load(Recipe, config.dump(same), overrides=self._overrides(same)), None
            path = config_path(self.config)
            return config.load(Recipe, path, overrides=self._overrides(config.load(Recipe, path))), None
        return self._planned(prepared, source, device)

    def _planned(
        self, prepared: "Prepared", source: "Model | None", device: "torch.device"
    ) -> "tuple[Recipe, Estimate | None]":
        import json
        from dataclasses import asdict

        from pipelines.machine import seconds
        from synth import config
        from synth.io import write_bytes
        from synth.recipe import Recipe
        from synth.training.plan import redesign, schedule

        path, told = self.out / PLAN, self.out / ASKED
        if path.is_file() and not self.dry_run:
            self._require_same_ask(told, config.load(Recipe, path))
            print(f"going on with {path}")
            return config.load(Recipe, path), None
        budget_s = seconds(self.budget or budget_of(prepared), "--budget")
        first = planned(prepared) if source is None else redesign(source.recipe, prepared.schema)
        overrides = self._overrides(first)
        recipe = config.load(Recipe, config.dump(first), overrides=overrides)
        recipe, estimate = schedule(recipe, _measured(recipe, prepared, source, device), budget_s=budget_s)
        if not self.dry_run:
            _tell(estimate, device)
            self.out.mkdir(parents=True, exist_ok=True)
            asked = {"budget": self.budget, "set": list(overrides)}
            means = {"hours": estimate.hours, "peak_gb": estimate.peak_gb, "stages": asdict(estimate)["stages"]}
            write_bytes(told, (json.dumps({**asked, "estimate": means}, indent=1) + "\n").encode())
            write_bytes(path, config.dump(recipe).encode())
        return recipe, estimate

    def _overrides(self, recipe: "Recipe") -> tuple[str, ...]:
        """Return the dotted overrides of `recipe` that were asked for: --precision in every stage, then --set."""
        if self.precision is None:
            return self.set
        return (*(f"{stage}.fit.precision={self.precision}" for stage in recipe.fits()), *self.set)

    def _require_same_ask(self, told: Path, plan: "Recipe") -> None:
        """Refuse another budget or other settings than a run was planned with. Errors: ConfigError, DataError."""
        from synth.errors import ConfigError

        before = plan_asked(told, mend="give another --out")
        for option, now in (("budget", self.budget), ("set", list(self._overrides(plan)))):
            if now and now != before.get(option):
                raise ConfigError(
                    f"{told.parent} was planned with --{option} {before.get(option) or 'left out'}, now it is {now}; "
                    f"leave --{option} out to go on, or give another --out"
                )


def planned(prepared: "Prepared") -> "Recipe":
    """Return the plan that `synth prepare` wrote beside the data, as it stands there now; without one, a new plan.

    A folder that does not say its budget is older: its plan was none that `auto` began with.
    """
    from synth import config
    from synth.recipe import Recipe
    from synth.training.plan import at_grid, design

    path = prepared.folder / PLAN
    if not path.is_file() or not (prepared.folder / ASKED).is_file():
        return design(prepared.schema)
    return at_grid(config.load(Recipe, path), prepared.schema)


def budget_of(prepared: "Prepared") -> str:
    """Return the budget that the data was prepared for; 2h where that is not known."""
    asked = plan_asked(prepared.folder / ASKED, mend="give --budget, or prepare again")
    return asked.get("budget") or DEFAULT_BUDGET


def plan_asked(path: Path, *, mend: str) -> dict[str, Any]:
    """Return what a plan.json says was asked of the plan beside it; nothing where there is none.

    Errors: DataError with the line, and `mend`.
    """
    from pipelines.forms import PlanAsked
    from synth.documents import read_document

    return read_document(path, PlanAsked, mend=mend) if path.is_file() else {}


def _tell_precision(recipe: "Recipe", device: "torch.device") -> None:
    """Say where bfloat16 that a recipe asks for is float32 here."""
    from synth.precision import native

    asked = {fit.precision for fit in recipe.fits().values()}
    if "bf16" in asked and not native(device):
        print("this CPU only emulates bfloat16, far slower than float32: bf16 stages are trained in float32")


def _measured(recipe: "Recipe", prepared: "Prepared", source: "Model | None", device: "torch.device") -> "Estimate":
    """Return what the recipe costs here, a bar meanwhile."""
    from pipelines.progress import progress
    from synth.training.plan import measure

    with progress("timing stages", 4 if recipe.mask is not None else 2) as bar:
        return measure(recipe, prepared, report=lambda stage: bar.advance(note=stage), source=source, device=device)


def _tell(estimate: "Estimate", device: "torch.device") -> None:
    """Print the table of stages. Errors: ConfigError where the memory does not suffice."""
    from pipelines.machine import in_words, memory_gb
    from synth.errors import ConfigError

    print(f"  {'stage':<18} {'s a step':>9} {'hours':>7} {'GB':>6}")
    for stage, cost in estimate.stages.items():
        print(f"  {stage:<18} {cost.step_s:>9.3f} {cost.hours:>7.2f} {cost.peak_gb:>6.2f}")
    print(f"  {'encoding':<18} {'':>9} {estimate.encoding_s / 3600:>7.2f}")
    there = memory_gb(device)
    print(f"  in all {in_words(estimate.hours * 3600)}, at most {estimate.peak_gb:.1f} GB of {there:.0f}")
    if estimate.peak_gb > 0.9 * there:
        raise ConfigError(
            f"training needs {estimate.peak_gb:.1f} GB, {device} has {there:.1f}; prepare with a coarser "
            "--spacing or lower batch sizes in the recipe"
        )


class _Bars:
    """One bar at a time, for the stage that is trained."""

    def __init__(self, *, quiet: bool = False) -> None:
        from pipelines.progress import Progress

        self._quiet = quiet
        self._new = Progress
        self._bar: Progress | None = None

    def __enter__(self) -> "_Bars":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def stage(self, stage: str):  # noqa: ANN201 - a Report
        """Return what is told after each step of `stage`."""
        from collections.abc import Mapping

        def told(done: int, total: int, figures: Mapping[str, float]) -> None:
            if self._quiet:
                return
            if self._bar is None or self._bar.label != stage:
                self.__exit__()
                self._bar = self._new(stage, total)
            self._bar.advance(done, f"loss {figures['loss']:.4f}" if "loss" in figures else "")

        return told
