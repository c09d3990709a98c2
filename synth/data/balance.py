"""Attributes in balance: which level or number each sample of a set is asked for. Knows no model and no command.

A sample's ask depends on its index and the seed alone, so that a set can be extended, sharded and made in any order.
"""

from collections.abc import Sequence

from synth.data.schema import Attribute
from synth.errors import ConfigError
from synth.rng import numpy_rng
from synth.sample import AttributeValue

_BASES = (2, 3, 5, 7, 11, 13)


def balanced(attributes: Sequence[Attribute], index: int, *, seed: int) -> dict[str, AttributeValue]:
    """Return what sample `index` is asked of `attributes`: combinations of levels in turn, numbers in strata.

    The first attribute's levels change fastest. Within each combination, the first b^k numbers of an attribute fall
    into the b^k equal parts of its range, one each: the radical inverse of the turn in the base b of the attribute
    (Halton, Numer. Math. 1960), moved round by a share drawn from the seed (Cranley & Patterson, SIAM J. Numer. Anal.
    1976). Errors: ConfigError for more than six numbers, beyond which that sequence fills space badly.

    >>> kind = Attribute(name="kind", kind="categorical", levels=("a", "b"))
    >>> [balanced([kind], index, seed=0)["kind"] for index in range(3)]
    ['a', 'b', 'a']
    """
    numbers = [attribute for attribute in attributes if attribute.kind == "number"]
    if len(numbers) > len(_BASES):
        raise ConfigError(f"{len(numbers)} numbers are spread at once; give {len(_BASES)} at most")
    out: dict[str, AttributeValue] = {}
    turn, combination, below = index, 0, 1
    for attribute in attributes:
        if attribute.kind == "categorical":
            turn, level = divmod(turn, len(attribute.levels))
            out[attribute.name] = attribute.levels[level]
            combination, below = combination + below * level, below * len(attribute.levels)
    for attribute, base in zip(numbers, _BASES):
        moved = numpy_rng(seed, "spread", attribute.name, combination).random()
        share = (radical_inverse(turn, base) + moved) % 1.0
        out[attribute.name] = float(attribute.low + share * (attribute.high - attribute.low))
    return out


def radical_inverse(number: int, base: int) -> float:
    """Return the digits of `number` in `base`, mirrored at the point: 0.d0 d1 d2 ...

    >>> [radical_inverse(number, 2) for number in range(4)]
    [0.0, 0.5, 0.25, 0.75]
    """
    out, scale = 0.0, 1.0 / base
    while number:
        number, digit = divmod(number, base)
        out, scale = out + digit * scale, scale / base
    return out
