"""The third agent reads the documents: headings, readability, broken links, notes to self."""

import re
from pathlib import Path

from .files import list_files
from .findings import Document, Finding, Prose

_CODE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
_UNDERLINED = re.compile(r"^(\S.{2,})\n[=~\-]{3,}\s*$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s#]+)(?:#[^)\s]*)?\)")
_WORD = re.compile(r"[A-Za-z']+")
_VOWELS = re.compile(r"[aeiouy]+")
_NOTE = re.compile(r"(?:#|//|<!--)\s*(TODO|FIXME|XXX|HACK)\b[: ]?(.*)")
_WANTED = ("install", "usage", "licen")
_LARGEST = 400_000


def read(folder: str) -> Prose:
    """What the documents tell, and what the authors left to be done."""
    root, names = Path(folder), list_files(folder)
    result = Prose()
    broken: list[str] = []
    notes: list[tuple[str, int, str]] = []
    for name in names.documents:
        text = _text(root / name)
        if not text.strip():
            continue
        result.documents.append(_document(name, text))
        broken += [f"{name} → {link}" for link in _broken_links(root, name, text)]
        notes += _notes(name, text)
    for name in names.python:
        notes += _notes(name, _text(root / name))
    result.words = sum(document.words for document in result.documents)
    result.notes = len(notes)
    result.findings = [*_overview(result.documents), *_readme(root, result.documents)]
    result.documents = sorted(result.documents, key=lambda document: -document.words)[:10]
    if broken:
        shown = "; ".join(broken[:3]) + (f" and {len(broken) - 3} more" if len(broken) > 3 else "")
        result.findings.append(Finding(f"Links that lead nowhere: {shown}."))
    if notes:
        file, line, text = notes[0]
        what = f"{len(notes)} notes to self" if len(notes) > 1 else "One note to self"
        result.findings.append(Finding(f"{what}, the first at {file}:{line}: {text}", [file]))
    return result


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            return ""
        return path.read_text("utf-8", errors="replace")
    except OSError:
        return ""


def _document(name: str, text: str) -> Document:
    plain = _CODE.sub("", text)
    headings = _HEADING.findall(plain) or _UNDERLINED.findall(plain)
    words = _WORD.findall(plain)
    return Document(name, len(words), len(headings), _ease(plain, words))


def _ease(text: str, words: list[str]) -> float | None:
    """Flesch's reading ease: 90 a child reads it, 60 plain English, 30 a paper. None for a few words."""
    if len(words) < 60:
        return None
    sentences = max(1, len(re.findall(r"[.!?:](?:\s|$)|\n\s*\n|\n\s*[-*|]", text)))
    syllables = sum(max(1, len(_VOWELS.findall(word.lower().removesuffix("e")))) for word in words)
    return round(206.8 - 1.015 * len(words) / sentences - 84.6 * syllables / len(words), 1)


def _broken_links(root: Path, name: str, text: str) -> list[str]:
    links = [link for link in _LINK.findall(_CODE.sub("", text)) if ":" not in link and "<" not in link]
    return [link for link in links if not _exists(root, name, link)]


def _exists(root: Path, name: str, link: str) -> bool:
    start = root if link.startswith("/") else (root / name).parent
    try:
        return (start / link.lstrip("/")).exists()
    except OSError:
        return True


def _notes(name: str, text: str) -> list[tuple[str, int, str]]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _NOTE.search(line)
        if match:
            found.append((name, number, f"{match[1]} {match[2].strip()}"[:80].strip()))
    return found


def _overview(documents: list[Document]) -> list[Finding]:
    if not documents:
        return [Finding("There are no documents: nobody has written down what this is.")]
    words = sum(document.words for document in documents)
    findings = [Finding(f"{len(documents)} documents with {words:,} words.")]
    rated = [document for document in documents if document.ease is not None and document.words > 150]
    if rated:
        hardest = min(rated, key=lambda document: document.ease or 0)
        text = f"Hardest to read: {hardest.file} (Flesch {hardest.ease:g}, 60 and more is plain English)."
        findings.append(Finding(text, [hardest.file]))
    return findings


def _readme(root: Path, documents: list[Document]) -> list[Finding]:
    readme = next((d for d in documents if d.file.lower().startswith("readme")), None)
    if readme is None:
        return [Finding("There is no README at the top.")]
    text = _text(root / readme.file).lower()
    missing = [f"“{word}…”" for word in _WANTED if word not in text]
    if not missing:
        return []
    return [Finding(f"{readme.file} has no word that begins with {', '.join(missing)}.", [readme.file])]
