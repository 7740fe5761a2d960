"""What stands in the documents works when it is typed."""

import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from pages import PAGES, ROOT, run_page


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_block_of_the_page_runs(page: Path, tmp_path: Path) -> None:
    done = run_page(page, tmp_path)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    if page.name == "README.md":
        _check_readme(done.stdout + done.stderr)


def _check_readme(out: str) -> None:
    """What the README says of its own example."""
    assert out.count("charge book") == 1
    for parcel in (1, 2):
        for attempt in (1, 2):
            assert out.count(f"pack parcel {parcel}, attempt {attempt}") == 1
    assert "completed" in out


DOCUMENTS = [ROOT / "README.md", ROOT / "DESIGN.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


def test_every_command_that_the_documents_name_exists() -> None:
    from holdfast.cli import main

    named = {
        (command, page.name)
        for page in DOCUMENTS
        for command in re.findall(r"(?:^ *|`|\()holdfast ([a-z]+)", page.read_text(), re.MULTILINE)
    }
    missing = [(command, page) for command, page in sorted(named) if main([command, "--help"]) != 0]
    assert not missing
