"""Write cli.md, the reference of the command line, from what `--help` says.

`tests/cli/test_reference.py` fails where the page is not what this would write.
"""

import contextlib
import io
import os
import sys
from pathlib import Path
from unittest import mock

PAGE = Path(__file__).with_name("cli.md")
INTRO = """# The command line

*This page is made from `holdfast COMMAND --help` by `docs/reference/make_cli.py`.*

Data go to stdout, everything else to stderr: progress, notes, and errors, which are one line `error: …`,
often with a line `hint: …`. With `--json` a command writes one object, or one object a line where it lists.
Ids are never cut. Colour is used on terminals, unless `NO_COLOR` is set.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | the answer is no: the run failed, something differs, a history diverges |
| 2 | it cannot be done: no such store, run, token or module, or wrong usage |
| 3 | time is up; the run goes on |
| 75 | `worker` gave up on workflow code that blocked its process |
| 130 | interrupted |
"""

TRAIL = """## trail

The program `trail` has the same commands, for people and scripts that know the npm tool of this name. It answers
in that tool's words, `trail start` refuses a second active trail of the same agent and work tree, `trail complete`
notes a confidence of 0.8 where none is given, and whatever fails has exit code 1. See
[Switch from the npm trail command](../how-to/switch-from-npm-trail.md).

| variable | meaning |
|---|---|
| `TRAJECTORIES_DATA_DIR` | the folder of trails, without `--data-dir` |
| `TRAJECTORIES_SEARCH_PATHS` | folders with colons between them, for `list`, `search`, `show` and `export` |
| `TRAJECTORIES_AGENT`, `TRAJECTORIES_SESSION` | who calls, without `--agent` and `--session` |
| `TRAJECTORIES_ID` | the trail to write to, without `--id` |
| `TRAJECTORIES_PROJECT`, `TRAJECTORIES_WORKFLOW_ID` | what `start` notes, without `--project` and `--workflow` |
"""


def help_of(*words: str) -> str:
    """What `holdfast … --help` prints at 80 columns."""
    from holdfast.cli import main

    out = io.StringIO()
    settings = {"COLUMNS": "80", "LINES": "24", "NO_COLOR": "1"}
    with mock.patch.dict(os.environ, settings), contextlib.redirect_stdout(out):
        os.environ.pop("HOLDFAST_URL", None)
        code = main([*words, "--help"])
    assert code == 0, (words, code)
    return "\n".join(line.rstrip() for line in out.getvalue().strip().splitlines())


def commands() -> list[str]:
    """The names of all commands, in the order of the help; those of a group behind its name."""
    from holdfast.cli import GROUPS
    from holdfast.cli.frame import app

    help_of()  # adds the commands
    of_groups = {
        str(group.name): [str(info.name) for info in group.typer_instance.registered_commands]
        for group in app.registered_groups
        if group.typer_instance is not None
    }
    added = {str(info.name or getattr(info.callback, "__name__", "")) for info in app.registered_commands}
    listed = [name for names in GROUPS.values() for name in names]
    assert set(listed) == added | set(of_groups), "holdfast.cli.GROUPS must name all commands"
    names = [name for name in listed if name not in of_groups and name != "trail"]
    return names + [f"{group} {name}" for group in listed for name in of_groups.get(group, ())]


def trail_commands() -> list[str]:
    """The names of the commands of `holdfast trail`, in the order of its help."""
    from holdfast.cli.trail import MODULES

    return list(MODULES)


def page() -> str:
    """The whole page."""
    parts = [INTRO, f"```text\n{help_of()}\n```\n"]
    parts += [f"## {name}\n\n```text\n{help_of(*name.split())}\n```\n" for name in commands()]
    parts.append(f"{TRAIL}\n```text\n{help_of('trail')}\n```\n")
    parts += [f"### trail {name}\n\n```text\n{help_of('trail', name)}\n```\n" for name in trail_commands()]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stderr.write(f"wrote {PAGE}\n")
