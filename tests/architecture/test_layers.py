"""Imports point down, files stay readable, and nothing in synth/ looks around itself."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("synth", "evaluation", "pipelines")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
LINES, FUNCTION_LINES, PARAMETERS = 400, 60, 8


def test_imports_point_down() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    if not lint.exists():
        pytest.skip("import-linter is not installed; `make check` runs it")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_files_and_functions_stay_readable() -> None:
    found = []
    for path in FILES:
        text = path.read_text()
        if len(text.splitlines()) > LINES:
            found.append(f"{_name(path)}: more than {LINES} lines")
        for function in _functions(ast.parse(text)):
            given = function.args
            count = len([*given.posonlyargs, *given.args, *given.kwonlyargs])
            count -= bool(given.args and given.args[0].arg in ("self", "cls"))
            length = (function.end_lineno or function.lineno) - function.lineno + 1
            if length > FUNCTION_LINES or count > PARAMETERS:
                found.append(f"{_name(path)}:{function.lineno} {function.name}: {length} lines, {count} parameters")
    assert not found, "\n".join(found)


def test_modules_open_with_what_they_are() -> None:
    bare = [
        _name(path) for path in FILES if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not bare
    assert not [_name(path) for path in FILES if path.stem in ("utils", "helpers", "misc")]


LOOKS_AROUND = {
    "sys": {"argv"},
    "os": {"environ", "environb", "getenv", "putenv", "getcwd", "getcwdb", "chdir"},
    "Path": {"cwd", "home"},
}
"""What would make a result depend on where and how a program was started."""
GLOBAL_RANDOM = {"seed", "rand", "randn", "random", "randint", "normal", "uniform", "choice", "shuffle", "permutation"}


def _outlook(path: Path) -> Iterator[str]:
    """Yield each look at arguments, environment, folder, pickle or numpy's global randomness."""
    for node in ast.walk(ast.parse(path.read_text())):
        where = f"{_name(path)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in LOOKS_AROUND.get(node.value.id, ()):
                yield f"{where} {node.value.id}.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module in LOOKS_AROUND:
            yield from (f"{where} {a.name}" for a in node.names if a.name in LOOKS_AROUND[str(node.module)])
        elif isinstance(node, ast.Import):
            yield from (f"{where} {a.name}" for a in node.names if a.name in ("pickle", "argparse", "random"))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.attr in GLOBAL_RANDOM:
            inner = node.value
            if inner.attr == "random" and isinstance(inner.value, ast.Name) and inner.value.id in ("np", "numpy"):
                yield f"{where} {inner.value.id}.random.{node.attr}"


def test_synth_does_not_look_around() -> None:
    found = [look for path in FILES if path.is_relative_to(ROOT / "synth") for look in _outlook(path)]
    assert not found, "\n".join(found)


def test_the_search_sees_what_it_looks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    path = tmp_path / "a.py"
    path.write_text("import pickle\nfrom os import getenv\nos.environ['A']\nPath.cwd()\nsys.argv\nnp.random.rand(3)\n")
    assert len(list(_outlook(path))) == 6
