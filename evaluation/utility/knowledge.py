"""How many patients the generator knew, against how many the segmenter got: what a gain at a share of them means.

Knows volumes and counts, no scores. A generator trained on every patient carries what it learned of all of them into
arms of a tenth: their gain is the generator's, not that of a tenth of the patients.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from evaluation.utility.arms import Volumes, patients_at


@dataclass(frozen=True, kw_only=True)
class Knowledge:
    """Patients of one fraction and of the generator.

    got         patients that the segmenter's real arms train on, the most of any seed
    generator   patients that the generator was trained on; where that is not recorded, all real training patients
    more        of those, how many some seed's real arm does not have
    recorded    the set says by hashes of voxels whom its generator saw
    chose       cases that only chose the generator's checkpoint
    elsewhere   in words, what else the generator saw; empty: nothing
    """

    fraction: float
    got: int
    generator: int
    more: int
    recorded: bool
    chose: int = 0
    elsewhere: str = ""

    @property
    def clean(self) -> bool | None:
        """True: the set tells of no patient but the segmenter's own; None: not recorded, and not refuted."""
        if self.more or self.elsewhere:
            return False
        return True if self.recorded else None

    @property
    def short(self) -> str:
        """Return what stands beside a figure.

        >>> Knowledge(fraction=0.1, got=29, generator=288, more=259, recorded=True).short
        'the segmenter got 29 real patients, the generator 288'
        """
        said = f"the segmenter got {self.got} real patients, the generator {self.generator}"
        return said + ("" if self.recorded else " as claimed") + (" and others" if self.elsewhere else "")

    @property
    def words(self) -> str:
        """Return what that means for R + S.

        >>> Knowledge(fraction=1.0, got=288, generator=288, more=0, recorded=True).words.split(": ")[1]
        'clean, the generator was trained on exactly those patients, as its set records'
        """
        start = f"at {100 * self.fraction:g} % of the real training patients {self.short}"
        chose = f" ({self.chose} other cases chose its checkpoint)" if self.chose else ""
        if self.clean is None:
            return f"{start}: that they are the same is not recorded with the set"
        if self.clean:
            same = "exactly those patients" if self.got == self.generator else "some of those patients and no other"
            return f"{start}: clean, the generator was trained on {same}, as its set records{chose}"
        what = f"{self.more} patients that the segmenter did not get" if self.more else ""
        what = " and ".join(part for part in (what, self.elsewhere) if part)
        return (
            f"{start}: mixed, arms with synthetic volumes also gain from {what}{chose}. Read R + S beside G, "
            "which trains on all of the generator's patients here for as many steps; a clean figure needs a generator "
            "trained on the segmenter's patients alone (a prepared folder of those, at fraction 1)"
        )


def knowledge_of(volumes: Volumes, fractions: Sequence[float], seeds: Sequence[int]) -> tuple[Knowledge, ...]:
    """Return what the generator knew and the segmenter got at each fraction."""
    everyone = frozenset(item.whose for item in volumes.real)
    known = volumes.generator
    seen = everyone if known.patients is None else known.patients
    out = []
    for fraction in fractions:
        own = [patients_at(fraction, volumes, seed) for seed in seeds]
        out.append(
            Knowledge(
                fraction=fraction,
                got=max(len(one) for one in own),
                generator=len(seen),
                more=max(len(seen - one) for one in own),
                recorded=known.patients is not None,
                chose=known.chose,
                elsewhere=known.elsewhere,
            )
        )
    return tuple(out)
