"""The reference says what the code says: every event, every error, every public name, every setting."""

import importlib.util
import inspect
import re
from pathlib import Path

import holdfast as hf
from holdfast import errors, events
from holdfast.failures import RemoteError
from holdfast.worker import Worker

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def tables(text: str) -> list[list[str]]:
    """The rows of all tables whose first cell is code."""
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_each_type_of_event_stands_under_its_class() -> None:
    text = (REFERENCE / "events.md").read_text()
    documented: dict[str, str] = {}
    for section in text.split("\n## ")[1:]:
        title = section.split(":")[0].strip().lower().removesuffix("s")
        if title in ("fact", "command", "record"):
            for row in tables(section):
                documented[row[0].strip("` ")] = title
    assert documented == {type_: events.new(type_).cls for type_ in events.TYPES}


def test_events_have_the_fields_that_are_documented() -> None:
    rows = tables((REFERENCE / "events.md").read_text())
    fields = {row[0].strip("` "): set(re.findall(r"\w+", row[2])) for row in rows}
    sources = "".join(path.read_text() for path in Path(hf.__file__).parent.rglob("*.py"))
    for type_, names in fields.items():
        for name in names:
            assert f'"{name}"' in sources, f"{type_}: no source writes {name!r}"


def test_each_error_is_documented_with_its_code() -> None:
    rows = tables((REFERENCE / "errors.md").read_text())
    documented = {row[0].strip("` "): row[1].strip("` ") for row in rows}
    classes = [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, errors.HoldfastError)
    ]
    codes = {cls.__name__: cls.code for cls in [*classes, RemoteError] if cls is not errors.HoldfastError}
    assert documented == codes


def test_each_public_name_is_documented() -> None:
    text = "".join(path.read_text() for path in REFERENCE.glob("*.md"))
    assert not [name for name in hf.__all__ if not re.search(rf"\b{name}\b", text)]


def test_settings_have_their_defaults() -> None:
    text = (REFERENCE / "settings.md").read_text()
    for fn in (Worker, hf.connect):
        for name, parameter in inspect.signature(fn).parameters.items():
            if parameter.kind is parameter.KEYWORD_ONLY:
                row = re.search(rf"^\| `{name}` \| (.*?) \|", text, re.MULTILINE)
                assert row, f"{name} is not in settings.md"
                known = parameter.default
                assert known is parameter.empty or row[1] in (str(known), "the system's"), name


def test_the_http_reference_is_what_the_operations_say() -> None:
    spec = importlib.util.spec_from_file_location("make_http", REFERENCE / "make_http.py")
    assert spec is not None
    assert spec.loader is not None
    make_http = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_http)
    text = (REFERENCE / "http-api.md").read_text()
    assert text == make_http.page(), "run `python docs/reference/make_http.py`"
