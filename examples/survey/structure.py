"""The second agent reads the source: modules, classes, functions, the ways through them, imports."""

import ast
import sys
import warnings
from collections import Counter
from pathlib import Path

from .files import list_files
from .findings import Finding, Function, Structure

_BRANCHES = (
    ast.If, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.IfExp, ast.comprehension,
    ast.match_case, ast.Assert,
)  # fmt: skip
_LARGEST = 400_000
"""Bytes of a file that is read; what is larger is data or generated."""


def read(folder: str) -> Structure:
    """What the syntax trees of the folder's Python files tell."""
    python = list_files(folder).python
    result = Structure()
    functions: list[Function] = []
    imports: Counter[str] = Counter()
    undocumented, broken = [], []
    for name in python:
        source = _source(Path(folder) / name)
        if source is None:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an invalid escape in their string is not our topic
                tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError):
            broken.append(name)
            continue
        result.modules += 1
        result.lines += source.count("\n")
        own = _functions(tree, name)
        functions += own
        result.classes += sum(isinstance(node, ast.ClassDef) for node in ast.walk(tree))
        if own:
            result.paths[name] = sum(function.paths for function in own)
        imports.update(_imports(tree))
        if ast.get_docstring(tree) is None and own:
            undocumented.append(name)
    result.paths = dict(Counter(result.paths).most_common(40))
    result.functions = len(functions)
    functions.sort(key=lambda function: (-function.paths, function.file, function.line))
    result.hardest = functions[:8]
    result.libraries = _libraries(imports, python)
    result.findings = _findings(result, functions, undocumented, broken)
    return result


def _source(path: Path) -> str | None:
    try:
        if path.stat().st_size > _LARGEST:
            return None
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return None


def _functions(tree: ast.AST, file: str) -> list[Function]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            found.append(Function(node.name, file, node.lineno, lines, _paths(node)))
    return found


def _paths(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """McCabe's number: one, and one more for each place where the way forks."""
    count = 1
    for node in ast.walk(function):
        if isinstance(node, _BRANCHES):
            count += 1
        elif isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
    return count


def _imports(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


def _libraries(imports: Counter[str], python: list[str]) -> dict[str, int]:
    """The imported packages that are neither Python's own nor the folder's."""
    own = {part.removesuffix(".py") for name in python for part in name.split("/")}
    outside = {n: c for n, c in imports.items() if n not in sys.stdlib_module_names and n not in own}
    return dict(Counter(outside).most_common(10))


def _findings(
    result: Structure, functions: list[Function], undocumented: list[str], broken: list[str]
) -> list[Finding]:
    unreadable = Finding(f"This Python cannot parse: {', '.join(broken[:5])}.", broken[:10])
    if not result.modules:
        return [unreadable if broken else Finding("There is no Python source to read.")]
    findings = [
        Finding(
            f"{result.modules} modules with {result.classes} classes, {result.functions} functions "
            f"and {result.lines:,} lines."
        )
    ]
    if functions:
        top = functions[0]
        findings.append(
            Finding(f"Most ways through it: {top.name} at {top.file}:{top.line} ({top.paths}).", [top.file])
        )
        longest = max(functions, key=lambda function: function.lines)
        text = (
            f"The longest function: {longest.name} at {longest.file}:{longest.line} ({longest.lines} lines)."
        )
        findings.append(Finding(text, [longest.file]))
    if result.libraries:
        findings.append(Finding(f"It leans on {', '.join(list(result.libraries)[:6])}."))
    if undocumented:
        share = round(100 * len(undocumented) / result.modules)
        text = (
            f"{len(undocumented)} modules ({share} %) do not say what they are for, {undocumented[0]} first."
        )
        findings.append(Finding(text, undocumented[:10]))
    if broken:
        findings.append(unreadable)
    return findings
