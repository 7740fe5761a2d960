"""Running a page of documents: its code blocks, in order, in one folder.

- A ```python block that starts with `# name.py` becomes that file (again, where it comes again).
- Any other ```python block is a script of its own; it sees the files.
- ```sh blocks run in one bash, so `&` and `$!` carry over from one to the next.

Blocks that are indented, or have no language, are not run: they are output, or fragments.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", *(page for page in (ROOT / "docs").rglob("*.md") if "```" in page.read_text())]
)
_BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\w+\.py)\n")


def script_of(page: Path) -> str:
    """The page as one bash script: what a reader would type and save."""
    parts = ["set -eu"]
    for language, code in _BLOCK.findall(page.read_text()):
        name = _FILE.match(code)
        if language == "sh":
            parts.append(code)
        elif name is not None:
            parts.append(f"cat > {name[1]} <<'END_OF_FILE'\n{code}END_OF_FILE")
        else:
            parts.append(f"python -W error - <<'END_OF_SCRIPT'\n{code}END_OF_SCRIPT")
    return "\n".join(parts) + "\n"


def run_page(page: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the page in `folder`, with this interpreter's `python` and `holdfast` first on the path."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HOLDFAST", "PYTEST"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["PYTHONPATH"] = str(folder)
    script = folder / "page.sh"
    script.write_text(script_of(page))
    with subprocess.Popen(
        ["bash", shlex.quote(script.name)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    ) as process:
        try:
            out, err = process.communicate(timeout=240)
        finally:
            with contextlib.suppress(ProcessLookupError):  # what the page left running
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(script.name, process.returncode, out, err)
