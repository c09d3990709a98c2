"""Where results may go: apart from what is read, and where the disk has room. Knows no verb."""

from pathlib import Path


def require_apart(out: Path, *given: Path | None, option: str = "--out") -> None:
    """Errors: OutputError where `out`, given by `option`, and another place are one, or one lies in the other; links
    are followed."""
    from synth.errors import OutputError

    for place in given:
        if place is not None and lie_together(out, place):
            raise OutputError(f"{option} {out} and {place} lie in one another; give another {option}")


def lie_together(one: Path, other: Path) -> bool:
    """True where two paths are one place, or one lies in the other; links are followed."""
    a, b = one.resolve(), other.resolve()
    return a.is_relative_to(b) or b.is_relative_to(a)


def free_bytes(out: Path) -> int:
    """Return how much the disk takes on which a folder lies, or will lie once it is made."""
    import shutil

    return shutil.disk_usage(next(one for one in (out.absolute(), *out.absolute().parents) if one.exists())).free


def require_room(out: Path, needed: float, what: str) -> None:
    """Errors: OutputError where the disk of `out` takes fewer than `needed` bytes."""
    from synth.errors import OutputError

    free = free_bytes(out)
    if needed > free:
        raise OutputError(
            f"the disk of {out} has {size_in_words(free)} free, {what} {size_in_words(needed)}; free room or give "
            "another --out"
        )


def size_in_words(count: float) -> str:
    """Return bytes as people say them.

    >>> size_in_words(1_500), size_in_words(2_500_000), size_in_words(3.2e12)
    ('1.5 kB', '2.5 MB', '3.2 TB')
    """
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} TB"
