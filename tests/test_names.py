"""All tests of a process share its workflows and steps: two files that give one name make each other fail."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).parent
ELSEWHERE = {HERE / "histories" / "before.py", HERE / "laws" / "elsewhere.py"}
"""Programs that a process of their own runs."""


def defined(path: Path) -> Iterator[tuple[str, str]]:
    """(kind, name) of each workflow and step of a file; a name that is made at run time is left out."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for mark in node.decorator_list:
            called = mark.func if isinstance(mark, ast.Call) else mark
            kind = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            given = {key.arg: key.value for key in mark.keywords} if isinstance(mark, ast.Call) else {}
            name = given.get("name", ast.Constant(node.name))
            if kind in ("workflow", "step") and isinstance(name, ast.Constant):
                yield kind, name.value


def test_no_two_files_of_tests_give_a_workflow_or_a_step_the_same_name():
    places: dict[tuple[str, str], set[str]] = defaultdict(set)
    for path in sorted(HERE.rglob("*.py")):
        if path not in ELSEWHERE:
            for definition in defined(path):
                places[definition].add(str(path.relative_to(HERE)))
    assert ("step", "square") in places
    shared = {f"{kind} {name}": sorted(files) for (kind, name), files in places.items() if len(files) > 1}
    assert not shared, f"give one of each another name with name=…: {shared}"
