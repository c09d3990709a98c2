"""Exact intervals of a share. Knows counts only."""

from scipy import stats


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact two-sided interval of a binomial share (Clopper & Pearson 1934).

    Its upper end at level 0.90 is the one-sided bound at 95 %. Errors: ValueError unless 0 <= successes <= n, n > 0.

    >>> [round(v, 4) for v in clopper_pearson(0, 299, level=0.90)]
    [0.0, 0.01]
    """
    if n < 1 or not 0 <= successes <= n or not 0 < level < 1:
        raise ValueError(f"a share needs 0 <= successes <= n, n > 0 and a level in 0..1, got {successes}, {n}, {level}")
    tail = (1.0 - level) / 2
    low = 0.0 if successes == 0 else float(stats.beta.ppf(tail, successes, n - successes + 1))
    high = 1.0 if successes == n else float(stats.beta.ppf(1 - tail, successes + 1, n - successes))
    return low, high
