"""Recipes that ship with the package, found by name."""

from importlib.util import find_spec
from pathlib import Path

from synth.errors import ConfigError, nearest


def shipped() -> dict[str, Path]:
    """Return the shipped recipes by name."""
    spec = find_spec("configs")
    places = list(spec.submodule_search_locations or ()) if spec else []
    return {path.stem: path for place in places for path in sorted(Path(place).glob("*.yaml"))}


def config_path(name: str) -> Path:
    """Return the file of a recipe given as a path or a shipped name."""
    path = Path(name)
    if path.is_file():
        return path
    known = shipped()
    if name in known:
        return known[name]
    raise ConfigError(f"no recipe file or shipped recipe {name!r}; {nearest(name, known)}")
