"""The command line under test: in this process where it can be, in a child where it must be."""

import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from holdfast import cli
from holdfast.cli import trail as cli_trail
from holdfast.workflow import steps, workflows

sys.path.insert(0, str(Path(__file__).parent))

from cli_kit import SHOP, Command, Ran


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with shop.py, which is the current one; nothing of it stays in this process."""
    (tmp_path / "shop.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    for name in ("HOLDFAST_URL", "HOLDFAST_DEBUG", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "shop", raising=False)  # another test's shop, of another folder
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(workflows, "_known", {})
    monkeypatch.setattr(steps, "_known", {})
    return tmp_path


@pytest.fixture(autouse=True)
def no_traces() -> Iterator[None]:
    """Modules that a command imported are forgotten."""
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", None) and "/pytest-" in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture
def holdfast(shop: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """`holdfast("runs", "--json")`, in this process and in the shop's folder."""

    def run(*words: str) -> Ran:
        capsys.readouterr()
        code = cli.main(words)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Ran(code, captured.out, captured.err)

    return run


# ---- trails


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which trails are kept, the current one, and nobody's name in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith(("TRAJECTORIES_", "HOLDFAST_", "GIT_")) or name in ("FORCE_COLOR", "COLUMNS"):
            monkeypatch.delenv(name)
    return tmp_path


@pytest.fixture
def ours(desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """`holdfast trail …` in this process; `stdin=` is what it reads."""
    return _trails(lambda words: cli.main(["trail", *words]), capsys, monkeypatch)


@pytest.fixture
def npm(desk: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """`trail …`, as users of the npm tool type it."""
    return _trails(cli_trail.main, capsys, monkeypatch)


def _trails(
    main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    def run(*words: str, stdin: str = "") -> Ran:
        capsys.readouterr()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
        code = main(list(words))
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        assert "holdfast itself failed" not in captured.err
        return Ran(code, captured.out, captured.err)

    return run
