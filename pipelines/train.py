"""synth train: every stage of a recipe, resumable, ending in a model folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train codec, mask generator and image generator of CONFIG on prepared data; RUN/model is what to load.

    The same command again goes on from the last checkpoint.
    """

    config: Annotated[str, tyro.conf.Positional]
    """A recipe: a YAML file, or the name of one that ships with the package."""
    data: Path
    """A folder that `synth prepare` wrote."""
    out: Path
    """Folder of the run."""
    fold: int | None = None
    """Train on this fold's training patients (prepare --folds): its validation patients are never read."""
    set: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Dotted overrides of the recipe, such as image.training.fit.steps=200 (repeatable)."""

    def run(self) -> int:
        """Train every stage that is not done."""
        from collections.abc import Mapping

        from pipelines.configs import config_path
        from pipelines.progress import Progress
        from synth import config
        from synth.data.prepared import Prepared
        from synth.recipe import Recipe
        from synth.training.experiment import Experiment

        recipe = config.load(Recipe, config_path(self.config), overrides=self.set)
        prepared = Prepared.load(self.data)
        if self.fold is not None:
            prepared = prepared.at_fold(self.fold)
        elif prepared.folds:
            print(f"{self.data} has {len(prepared.folds)} folds; without --fold no patient is kept for validation")
        bars: list[Progress] = []

        def report(stage: str):  # noqa: ANN202 - a Report
            def told(done: int, total: int, figures: Mapping[str, float]) -> None:
                if not bars or bars[-1].label != stage:
                    for bar in bars:
                        bar.close()
                    bars.append(Progress(stage, total))
                note = f"loss {figures['loss']:.4f}" if "loss" in figures else ""
                bars[-1].advance(done, note)

            return told

        try:
            folder = Experiment(recipe, prepared, self.out, report).run()
        finally:
            for bar in bars:
                bar.close()
        print(f"model in {folder}")
        return 0
