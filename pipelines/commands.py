"""A verb's dataclass -> the words of the command line that spell it. Runs nothing."""

from collections.abc import Iterable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints


def words_of(verb: str, command: Any, *, but: Iterable[str] = ()) -> list[str]:
    """Return `synth VERB ...` as it would be typed: positional values first, then every option off its default.

    Files and folders are made absolute: the words hold wherever they are typed.
    but   fields to leave out

    >>> from pipelines.quickstart import Quickstart
    >>> words_of("quickstart", Quickstart(out=Path("/tmp/q"), seed=3, prompts=True))
    ['synth', 'quickstart', '--out', '/tmp/q', '--seed', '3', '--prompts']
    """
    import tyro

    words: list[str] = ["synth", verb]
    options: list[str] = []
    hints = get_type_hints(type(command), include_extras=True)
    for field in fields(command):
        value = getattr(command, field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        if field.name in but or value == default:
            continue
        name = "--" + field.name.replace("_", "-")
        each = value if isinstance(value, (tuple, list)) else (value,)
        said = [str(one.resolve() if isinstance(one, Path) else one) for one in each]
        marks = getattr(hints[field.name], "__metadata__", ())
        if any(mark is tyro.conf.Positional for mark in marks):
            words += said
        elif isinstance(value, bool):
            options.append(name if value else f"--no-{field.name.replace('_', '-')}")
        elif any(mark is tyro.conf.UseAppendAction for mark in marks):
            options += [word for one in said for word in (name, one)]
        else:
            options += [name, *said]
    return [*words, *options]
