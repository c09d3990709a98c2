"""synth merge: shards of one set joined, or a set put into a real dataset for nnU-Net to train on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True, kw_only=True)
class Merge:
    """Join shards that were generated into separate folders, or with --into put a set into a real dataset.

    The same command again completes a merge that was cut short.
    """

    sets: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SET", help_behavior_hint="(required)")
    ]
    """Folders of `synth generate`: every shard of one set, or with --into one whole set."""
    out: Path
    """Folder to write; with --into its name is DatasetNNN_NAME, inside nnUNet_raw."""
    into: Path | None = None
    """A real dataset in any layout: its cases come first, synthetic ones on its spacing, labels and channels."""
    ratio: float = 1.0
    """With --into: synthetic cases for each real one, the first of the set."""
    patients: str | None = None
    """With --into: which real cases share a patient: each, a regular expression with one group, or a CSV."""
    data: Path | None = None
    """With --into: the prepared data that the model was trained on, where --into holds those cases in another form."""
    folds: int = 5
    """With --into: folds at most; each patient that the model never saw validates once."""
    seed: int = 0
    """With --into: of the folds."""

    def run(self) -> int:
        """Join the shards or hand the set over, and say what was written."""
        from pipelines.places import require_apart
        from synth.errors import ConfigError, DataError

        if not self.sets:
            raise ConfigError("give the folders to join: synth merge SHARD SHARD ... --out DIR")
        for folder in self.sets:
            if not folder.is_dir():
                what = "is a file" if folder.exists() else "does not exist"
                raise DataError(f"{folder} {what}; give the folders that `synth generate` wrote")
        require_apart(self.out, *self.sets, self.into, self.data)
        if self.into is None:
            from pipelines.joining import join

            print(f"{join(self.sets, self.out)} samples in {self.out}")
            return 0
        if len(self.sets) > 1:
            raise ConfigError("--into takes one whole set; join its shards first: synth merge SHARD ... --out DIR")
        from pipelines.handover import hand_over

        for line in hand_over(self):
            print(line)
        return 0
