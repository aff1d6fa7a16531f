"""The shape of the house: sizes, names, docstrings, and the same rooms in every service."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = ("libs", "services", "deploy/local")
SERVICES = ("collector", "analyzer", "recommender", "feedback")

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
EXEMPT = "# size:"
"""A file or function over the limit says why on a line that starts so."""

REQUIRED_ROOMS = {"__main__", "app", "api", "handlers", "model", "ports", "settings", "metrics", "errors"}
BANNED_NAMES = {"utils", "helpers", "manager", "base", "common_utils", "misc"}


def modules() -> list[Path]:
    return sorted(
        path for floor in FLOORS for path in (ROOT / floor).rglob("*.py") if path.stat().st_size > 0
    )


def rooms() -> list[str]:
    """Every module of the house, as its import path."""
    return [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules()]


@pytest.fixture(params=modules(), ids=lambda path: str(path.relative_to(ROOT)))
def module(request: pytest.FixtureRequest) -> Path:
    assert isinstance(request.param, Path)
    return request.param


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def test_module_is_small_named_and_explained(module: Path) -> None:
    text = module.read_text()
    lines = text.splitlines()
    tree = ast.parse(text)
    assert module.stem not in BANNED_NAMES
    assert ast.get_docstring(tree) or "migrations" in module.parts, "a line that says what is in this room"
    assert len(lines) <= MAX_FILE_LINES or EXEMPT in text, f"{len(lines)} lines: this wants to be two rooms"
    for function in functions(tree):
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        body = "\n".join(lines[function.lineno - 1 : function.end_lineno])
        assert length <= MAX_FUNCTION_LINES or EXEMPT in body, f"{function.name} has {length} lines"
        assert function.returns is not None, f"{function.name} has no return type"


def test_files_of_tests_are_small_named_and_explained() -> None:
    ours = (path for path in (ROOT / "tests").rglob("*.py") if "node_modules" not in path.parts)
    files = {str(path.relative_to(ROOT)): path for path in ours}
    long = [name for name, path in files.items() if len(path.read_text().splitlines()) > MAX_FILE_LINES]
    assert long == [], "a folder of tests shows what is proved where: split by subject"
    assert [name for name, path in files.items() if path.stem in BANNED_NAMES] == []
    assert [name for name, path in files.items() if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_module_does_nothing_at_import_time(module: Path) -> None:
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.Expr):
            assert isinstance(node.value, ast.Constant), f"line {node.lineno} does something when imported"
        assert not isinstance(node, ast.For | ast.While | ast.With), f"line {node.lineno} works when imported"


def test_public_names_of_the_common_floor_are_documented() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in modules()
        if path.is_relative_to(ROOT / "libs")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node) is None
        and len(ast.unparse(node).splitlines()) > 3
    ]
    assert bare == []


@pytest.mark.parametrize("service", SERVICES)
def test_service_has_the_same_rooms_as_the_others(service: str) -> None:
    folder = ROOT / "services" / service
    there = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert REQUIRED_ROOMS - there == set()


def test_house_lists_its_rooms(capsys: pytest.CaptureFixture[str]) -> None:
    listed = rooms()
    with capsys.disabled():
        print(f"\n{len(listed)} rooms:")
        for floor in FLOORS:
            names = [room for room in listed if room.startswith(floor.replace("/", "."))]
            print(f"  {floor}: {len(names)}")
            print("    " + "\n    ".join(names))
    assert len(listed) == len(set(listed))
