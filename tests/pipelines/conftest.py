"""A generated set, whole and in shards, for the tests of what is done with it."""

from pathlib import Path

import pytest

from tests.pipelines.test_plan import generate


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of five by one process."""
    out = tmp_path_factory.mktemp("scale") / "whole"
    assert generate(model, out, "--count", 5) == 0
    return out


@pytest.fixture(scope="module")
def shards(model: Path, whole: Path) -> list[Path]:
    """The same set, its three shards in separate folders."""
    folders = [whole.parent / f"shard{number}" for number in range(3)]
    for number, folder in enumerate(folders):
        assert generate(model, folder, "--count", 5, "--shard", f"{number}/3") == 0
    return folders
