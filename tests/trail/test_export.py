"""Trails as documents: what they tell, that the same trail gives the same bytes, and that no text breaks them."""

import os
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from markdown_it import MarkdownIt
from markdown_it.token import Token

from holdfast.errors import PayloadError
from holdfast.trail.export import FORMATS, export, outline
from holdfast.trail.export.text import clean, line, span
from holdfast.trail.model import (
    Agent,
    Alternative,
    Chapter,
    Decision,
    Event,
    Retrospective,
    Source,
    Task,
    Trail,
)
from holdfast.trail.record import parse, to_record

sys.path.insert(0, str(Path(__file__).parent))
from generated import HOSTILE, trails

START = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def event(minutes: float, type: str, content: str, **more: Any) -> Event:
    when = at(minutes)
    return Event(ts=int(when.timestamp() * 1000), type=type, content=content, occurred_at=when, **more)


def chapter(
    id: str, agent: str, begin: float, end: float | None, *events: Event, parent: str | None = None
) -> Chapter:
    ended = None if end is None else at(end)
    return Chapter(
        id=id,
        title=f"Part {id}",
        agent_name=agent,
        started_at=at(begin),
        ended_at=ended,
        parent=parent,
        events=list(events),
    )


def trail_of(*chapters: Chapter, **more: Any) -> Trail:
    known: dict[str, Any] = {"task": Task(title="Fix login"), "status": "active", "started_at": START}
    return Trail(**(known | {"id": "traj_x", "chapters": list(chapters)} | more))


STORY = trail_of(
    chapter(
        "a",
        "ana",
        0,
        20,
        event(1, "thinking", "hm"),
        event(2, "tool_call", "grep"),
        event(3, "note", "three modules"),
        event(4, "decision", "Use JWT", raw={"question": "Use JWT", "chosen": "Use JWT", "reasoning": ""}),
        event(5, "tool_result", "it burns", significance="critical"),
    ),
    chapter("b", "ben", 1, 15, event(6, "finding", "the second read"), parent="a"),
    chapter("c", "carl", 2, 18, event(7, "zzz", "unknown", agent="dora"), parent="a"),
    task=Task(
        title="Fix login", source=Source(system="linear", id="ENG-1", url="https://x.y/ENG-1?a=1&copy=2")
    ),
    status="abandoned",
    completed_at=at(30),
    agents=[Agent(name="ana", role="lead", joined_at=START)],
    abandon_reason="no budget left",
    retrospective=Retrospective(
        summary="Half done",
        confidence=0.4,
        decisions=[
            Decision(
                question="Which cache?",
                chosen="Redis",
                alternatives=["none", Alternative(option="memcached", reason="no disk")],
                reasoning="fast",
            )
        ],
        challenges=["time"],
        learnings=["ask first"],
        suggestions=["more time"],
    ),
    commits=["69673fe"],
    files_changed=["a.txt"],
)


# ---- what is told


@pytest.mark.parametrize("format", ["md", "html"])
def test_a_document_tells_all_that_a_reader_wants(format: str) -> None:
    text = export(STORY, format)
    told = [
        "Fix login",
        "abandoned",
        "no budget left",
        "linear ENG-1",
        "ana",
        "lead",
        "ben",
        "carl",
        "dora",
        "40%",
    ]
    told += ["Half done", "Use JWT", "Which cache?", "Redis", "fast", "memcached", "no disk", "three modules"]
    told += [
        "it burns",
        "the second read",
        "zzz",
        "unknown",
        "time",
        "ask first",
        "more time",
        "69673fe",
        "a.txt",
    ]
    assert [each for each in told if each not in text] == []
    assert text.endswith("\n<!-- holdfast: traj_x, 7 events -->\n")


TIMELINE = """\
Fix login
traj_x · abandoned
2026-11-20 09:00:00 to 09:30:00 UTC, 30m 00s
ana (lead), ben, carl, dora

09:00:00  ████████████████········  20m 00s  1 Part a (ana)
09:01:00  ████████████············  14m 00s  ├─ 1.1 Part b (ben) ∥ 1
09:02:00  ·█████████████··········  16m 00s  └─ 1.2 Part c (carl) ∥ 1

09:00:00  1 Part a (ana), 20m 00s
09:01:00  ├─ 1.1 Part b (ben), 14m 00s ∥ beside 1 other
09:06:00  │  └─ finding: the second read
09:02:00  ├─ 1.2 Part c (carl), 16m 00s ∥ beside 1 other
09:07:00  │  └─ zzz by dora: unknown
09:03:00  ├─ note: three modules
09:04:00  ├─ decision: Use JWT
09:05:00  ├─ tool_result (critical): it burns
          └─ (and 1 thinking, 1 tool_call)

09:30:00  abandoned, 40% sure
          reason: no budget left
          Half done
"""


def test_a_timeline_shows_the_tree_and_who_worked_beside_whom() -> None:
    assert export(STORY, "timeline") == TIMELINE


def test_a_timeline_of_several_days_has_the_date_in_each_line() -> None:
    trail = trail_of(chapter("a", "ana", 0, 1440, event(1439, "note", "x")))
    lines = export(trail, "timeline").splitlines()
    assert lines[-2:] == ["2026-11-20 09:00:00  1 Part a (ana), 1d 00h", "2026-11-21 08:59:00  └─ note: x"]


def test_what_the_machine_said_is_counted_where_it_is_not_told() -> None:
    text = export(STORY, "md")
    assert "- (and 1 thinking, 1 tool_call, in the record)" in text
    assert "grep" not in text
    assert "grep" in export(STORY, "html")


def test_a_question_that_is_its_own_answer_is_said_once() -> None:
    text = export(STORY, "md")
    assert "### 1. Use JWT" in text
    assert "Use JWT: Use JWT" not in text
    assert "**Chosen:** Use JWT" not in text


def test_json_is_the_record() -> None:
    assert parse(export(STORY, "json").encode()) == to_record(STORY)


def test_late_and_back_dated_events_say_so() -> None:
    late = event(1, "note", "too late", late=True, recorded_at=at(99), origin="npm")
    later = event(1, "note", "from memory", recorded_at=at(1441))
    for format in ("md", "html", "timeline"):
        text = export(trail_of(chapter("a", "ana", 0, 9, late, later)), format)
        assert "recorded after the end" in text
        assert "from npm" in text
        assert "written down at 2026-11-21 09:01:00" in text


def test_a_number_that_is_no_time_is_shown_as_none() -> None:
    trail = trail_of(chapter("a", "ana", 0, 1, Event(ts=10**30, type="note", content="x")))
    assert "- --:--:-- **note**: x" in export(trail, "md")
    assert "--:--:--  └─ note: x" in export(trail, "timeline")
    assert "<time>--:--:--</time>" in export(trail, "html")


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(
        PayloadError, match=r"format: expected one of md, markdown, json, timeline, html, got 'pdf'"
    ):
        export(STORY, "pdf")


# ---- the tree


def test_each_chapter_stands_once_whatever_its_parents_say() -> None:
    trail = trail_of(
        chapter("self", "a", 0, 1, parent="self"),
        chapter("x", "a", 0, 1, parent="y"),
        chapter("y", "a", 0, 1, parent="x"),
        chapter("lost", "a", 0, 1, parent="missing"),
        chapter("y", "a", 0, 1, parent="lost"),
    )
    rows = [(row.number, row.chapter.id) for row in outline.walk(outline.tree(trail))]
    assert rows == [("1", "self"), ("2", "lost"), ("2.1", "y"), ("3", "x"), ("3.1", "y")]


def test_a_thousand_nested_chapters_are_all_there() -> None:
    chapters = [chapter(str(n), "a", 0, 1, parent=str(n - 1) if n else None) for n in range(1000)]
    trail = trail_of(*chapters)
    rows = list(outline.walk(outline.tree(trail)))
    assert [row.chapter.id for row in rows] == [str(n) for n in range(1000)]
    assert max(row.depth for row in rows) == outline.DEEPEST
    for format in FORMATS:
        assert "Part 999" in export(trail, format)


def test_only_chapters_of_the_same_hours_are_beside_each_other() -> None:
    trail = trail_of(chapter("a", "a", 0, 5), chapter("b", "b", 5, 9), chapter("c", "c", 4, None))
    assert [row.beside for row in outline.tree(trail)] == [1, 1, 2]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0s"),
        (0, "0s"),
        (0.25, "0.25s"),
        (9, "9s"),
        (42.9, "42s"),
        (723, "12m 03s"),
        (3725, "1h 02m"),
        (183600, "2d 03h"),
    ],
)
def test_spans_are_short(seconds: float, words: str) -> None:
    assert span(timedelta(seconds=seconds)) == words


# ---- the same trail, the same bytes


def test_machine_zone_language_and_hash_seed_change_nothing(tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    record.write_text(export(STORY, "json"))
    code = (
        "import sys, pathlib\n"
        "from holdfast.trail.record import from_record, parse\n"
        "from holdfast.trail.export import FORMATS, export\n"
        "trail = from_record(parse(pathlib.Path(sys.argv[1]).read_bytes()))\n"
        "sys.stdout.buffer.write(''.join(export(trail, format) for format in FORMATS).encode())\n"
    )
    here = "".join(export(STORY, format) for format in FORMATS)
    for zone, language, seed in (("Asia/Tokyo", "de_DE.UTF-8", "1"), ("America/New_York", "C", "2")):
        settings = {"TZ": zone, "LC_ALL": language, "PYTHONHASHSEED": seed, "COLUMNS": "40"}
        out = subprocess.run(
            [sys.executable, "-c", code, str(record)],
            env=os.environ | settings,
            capture_output=True,
            check=True,
        )
        assert out.stdout.decode() == here


@pytest.mark.parametrize("format", sorted({"md", "timeline", "html", "json"}))
def test_the_offset_of_an_instant_does_not_matter(format: str) -> None:
    elsewhere = trail_of(started_at=START.astimezone(timezone(timedelta(hours=-9))))
    assert export(elsewhere, format) == export(trail_of(), format)


# ---- no text breaks a document


@given(trails())
def test_any_trail_is_text_that_can_be_written(trail: Trail) -> None:
    for format in FORMATS:
        text = export(trail, format)
        assert text.encode()
        assert text.endswith("\n")
        controls = re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
        assert format == "json" or not controls
    assert parse(export(trail, "json").encode()) == to_record(trail)


COMMONMARK = MarkdownIt("commonmark").enable(["table", "strikethrough"])
BLOCKS = {"table_open", "blockquote_open", "hr", "ordered_list_open", "code_block"}
"""What no document of ours has, so that where it is found, a text made it."""


@given(trails())
def test_markdown_has_the_headings_that_it_should_and_no_html(trail: Trail) -> None:
    text = export(trail, "markdown")
    tokens = COMMONMARK.parse(text)
    found = [bare(tokens[place + 1]) for place, token in enumerate(tokens) if token.type == "heading_open"]
    assert found[0] == squeezed(trail.title)
    sections = {"Summary", "Keydecisions", "Chapters", "Challenges", "Learnings", "Suggestions", "Artifacts"}
    sections.add("Whyitwasabandoned")
    expected = [
        f"{n}.{squeezed(made.question)}" for n, (made, _) in enumerate(outline.decisions(trail), start=1)
    ]
    expected += [f"{row.number}·{squeezed(row.chapter.title)}" for row in outline.walk(outline.tree(trail))]
    told = [heading for heading in found[1:] if heading not in sections]
    assert [heading for heading in expected if heading not in sections] == told

    blocks = [token for token in tokens if token.type == "html_block"]
    assert [token.content.strip() for token in blocks] == [text.rstrip().splitlines()[-1]]
    assert not {token.type for token in tokens} & BLOCKS
    inner = [child for token in tokens for child in token.children or ()]
    assert not any(child.type in ("html_inline", "image", "s_open") for child in inner)
    links = [child.attrs["href"] for child in inner if child.type == "link_open"]
    assert len(links) <= 1
    assert all(str(href).startswith(("http://", "https://")) for href in links)
    assert all(token.info == "text" for token in tokens if token.type == "fence")


@pytest.mark.parametrize("piece", HOSTILE)
def test_each_hostile_piece_shows_as_it_is_in_markdown(piece: str) -> None:
    """As a title, within a line, on a line of its own, and at the beginning of an item."""
    title, note = f"title {piece}", f"before {piece} after"
    trail = trail_of(
        chapter("a", "ana", 0, 1, event(0, "note", note)),
        task=Task(title=title, description=f"above\n{piece}\nbelow"),
        retrospective=Retrospective(summary=f"above\n{piece}", challenges=[f"{piece}x"]),
    )
    tokens = COMMONMARK.parse(export(trail, "md"))
    found = [bare(tokens[place + 1]) for place, token in enumerate(tokens) if token.type == "heading_open"]
    assert found == [squeezed(title), "Summary", "Chapters", "1·Parta", "Challenges"]
    shown = "".join(bare(token) for token in tokens if token.type in ("inline", "fence"))
    for text in (note, f"above\n{piece}", f"above\n{piece}\nbelow", f"{piece}x"):
        assert squeezed(text) in shown
    assert [token.type for token in tokens].count("list_item_open") == 4 + 1 + 1  # facts, note, challenge
    assert not {token.type for token in tokens} & BLOCKS


def bare(token: Token) -> str:
    """What a reader sees, without blanks and without the backticks that make code of words."""
    parts = token.children if token.children is not None else [token]
    return squeezed(
        "".join(
            part.content for part in parts if part.type in ("text", "code_inline", "text_special", "fence")
        )
    )


def squeezed(text: str) -> str:
    return re.sub(r"\s|`", "", line(text))


class Page(HTMLParser):
    """Reads a page and notes what is wrong with it."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.attributes: set[str] = set()
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name == "id":
                self.ids.append(value or "")
            if name == "href":
                self.links.append(value or "")
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data


_TAGS = (
    "html head meta title style body main header footer section article details summary div span p h1 h2 h3 a b i "
    "ul ol li dl dt dd code pre small bdi time"
)
_ATTRIBUTES = "lang charset http-equiv content name class id href rel dir title style open datetime role"


@given(trails())
def test_a_page_is_well_formed_and_made_of_known_parts_only(trail: Trail) -> None:
    page = Page(export(trail, "html"))
    assert page.tags <= set(_TAGS.split())
    assert page.attributes <= {*_ATTRIBUTES.split(), "aria-label", "aria-hidden"}
    assert len(page.ids) == len(set(page.ids))
    for link in page.links:
        assert link.startswith(("http://", "https://")) or link[1:] in page.ids
    assert squeezed(trail.title) in re.sub(r"\s|`", "", page.words)
    for chapter in trail.chapters:
        for event in chapter.events:
            assert re.sub(r"\s|`", "", clean(outline.told(event)).strip("\n")) in re.sub(
                r"\s|`", "", page.words
            )


@given(trails())
def test_a_timeline_has_each_chapter_twice_and_each_line_is_one_of_its_own(trail: Trail) -> None:
    text = export(trail, "timeline")
    shape = re.compile(r"((\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d|--:--:--|        )  ")
    tree = text.split("\n\n")[1:]
    assert all(shape.match(each) for part in tree for each in part.strip("\n").splitlines())
    for row in outline.walk(outline.tree(trail)):
        heads = re.findall(rf"(?m)^[-\d: ]+[·█ \d\w]*[├└│─ ]*{re.escape(row.number)} .*\(", text)
        assert len(heads) >= (2 if len(trail.chapters) > 1 else 1)


# ---- in a real browser

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
)


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        why = f"no Chromium on this machine (looked for {', '.join(BROWSERS)}): the page was opened in no browser"
        assert os.environ.get("CI", "").lower() != "true", why
        pytest.skip(why)
    return found


def dom(browser: str, folder: Path, text: str) -> str:
    """The page's elements after it was opened, and after its scripts ran, had it any."""
    page = folder / "page.html"
    page.write_text(text, encoding="utf-8")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--virtual-time-budget=1000",
    ]
    done = subprocess.run(
        [browser, *flags, f"--user-data-dir={folder / 'profile'}", "--dump-dom", page.as_uri()],
        capture_output=True,
        timeout=120,
        check=True,
    )
    return done.stdout.decode()


SCRIPT = "<script>document.documentElement.setAttribute('data-ran', '1')</script>"


def test_a_browser_shows_the_trail_and_runs_nothing_that_it_says(browser: str, tmp_path: Path) -> None:
    attack = f"</title></style></details>{SCRIPT}<img src=x onerror=\"document.title='owned'\">"
    trail = trail_of(
        chapter("a", f"ana{attack}", 0, 9, event(1, f"note{attack}", f"seen{attack}", raw={attack: attack})),
        chapter("b", "ben", 1, 5, event(1, "tool_call", "folded away"), parent="a"),
        task=Task(title=f"Fix login{attack}"[:500]),
        tags=[attack],
    )
    shown = dom(browser, tmp_path, export(trail, "html"))
    assert "data-ran=" not in shown
    assert "<img" not in shown
    assert "<title>Fix login&lt;/title&gt;" in shown
    page = Page(shown)
    assert {"script", "img"}.isdisjoint(page.tags)
    for words in ("Fix login", "seen", "folded away", "Part a", "Part b", "Who worked when", "ben"):
        assert words in page.words


def test_the_policy_of_the_page_stops_a_script_even_if_an_escape_were_forgotten(
    browser: str, tmp_path: Path
) -> None:
    text = export(STORY, "html")
    forgotten = text.replace("</main>", f"{SCRIPT}</main>")
    assert forgotten != text
    assert "data-ran=" not in dom(browser, tmp_path, forgotten)
    without = re.sub(r"<meta http-equiv[^>]*>", "", forgotten)
    assert "data-ran=" in dom(browser, tmp_path, without), (
        "the browser ran no script at all: this proves nothing"
    )
