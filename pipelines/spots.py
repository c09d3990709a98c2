"""A blob of a label as it is asked for: LABEL@i,j,k:ML on the command line, a click on the page. Knows no mask."""

import math
import re
from dataclasses import dataclass

_SPELLED = re.compile(r"(?P<label>.+)@(?P<at>-?[0-9]+(,-?[0-9]+){1,2}):(?P<ml>[0-9.eE+-]+|nan|inf)")


def spot_seed(seed: int, index: int, number: int) -> int:
    """Return the seed of the shape of blob `number` in image `index`.

    >>> len({spot_seed(seed, index, number) for seed in (0, 1) for index in (0, 1) for number in (0, 1)})
    8
    """
    from synth.rng import sequence

    return int(sequence(seed, index, "spot", number).generate_state(1)[0])


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A blob placed by hand: of which label, at which voxel, how large, and the seed of its shape."""

    label: str
    at: tuple[int, ...]
    ml: float
    seed: int

    @classmethod
    def parse(cls, text: str, *, seed: int) -> "Spot":
        """Return the spot of its spelling. Errors: ConfigError.

        >>> Spot.parse("lesion@23,42,37:4.5", seed=1)
        Spot(label='lesion', at=(23, 42, 37), ml=4.5, seed=1)
        """
        from synth.errors import ConfigError

        found = _SPELLED.fullmatch(text)
        try:
            ml = float(found["ml"]) if found else math.nan
        except ValueError:
            ml = math.nan
        if found is None:
            raise ConfigError(f"--place {text!r} is no spot; write LABEL@i,j,k:ML, such as lesion@30,42,37:2.5")
        at = tuple(int(part) for part in found["at"].split(","))
        if min(at) < 0:
            raise ConfigError(f"--place {text!r}: voxel {found['at']} has a number below 0; they count from 0")
        if not (math.isfinite(ml) and ml > 0):
            raise ConfigError(f"--place {text!r}: the size is {found['ml']} ml; give a number above 0")
        return cls(label=found["label"], at=at, ml=ml, seed=seed)

    @property
    def spelled(self) -> str:
        """The command line's spelling, without the seed.

        >>> Spot(label="lesion", at=(1, 2, 3), ml=0.5, seed=0).spelled
        'lesion@1,2,3:0.5'
        """
        return f"{self.label}@{','.join(map(str, self.at))}:{self.ml}"
