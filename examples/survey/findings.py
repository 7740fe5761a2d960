"""What the agents hand to each other. Steps record these in the log, as JSON that people can read."""

from dataclasses import dataclass, field


@dataclass
class Approval:
    """What the hook waits for: `holdfast resume approve:RUN '{"approved": true, "by": "you"}'`."""

    approved: bool
    by: str
    note: str = ""


@dataclass
class Listing:
    """How many files there are; `skipped` is how many are too far down in a folder that is too large.

    Numbers, not names: what a step returns stays in the log for good, so it is what later steps need.
    """

    total: int
    python: int
    documents: int
    skipped: int = 0


@dataclass
class Finding:
    """One sentence worth a reader's time, and the files that it is about."""

    text: str
    files: list[str] = field(default_factory=list)


@dataclass
class History:
    """What `git log` tells."""

    commits: int = 0
    authors: dict[str, int] = field(default_factory=dict)
    changes: dict[str, int] = field(default_factory=dict)
    weekdays: list[int] = field(default_factory=lambda: [0] * 7)
    first: str = ""
    last: str = ""
    findings: list[Finding] = field(default_factory=list)


@dataclass
class Function:
    """A function and how many ways lead through it."""

    name: str
    file: str
    line: int
    lines: int
    paths: int


@dataclass
class Structure:
    """What the syntax trees tell. `paths` has, for the hardest files, the ways through their functions."""

    modules: int = 0
    lines: int = 0
    classes: int = 0
    functions: int = 0
    paths: dict[str, int] = field(default_factory=dict)
    hardest: list[Function] = field(default_factory=list)
    libraries: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


@dataclass
class Document:
    """One document: how long it is, and how easily it reads (Flesch; 60 and more is plain English)."""

    file: str
    words: int
    headings: int
    ease: float | None


@dataclass
class Prose:
    """What the documents tell, and the notes to self in the source. `documents` are the longest ones."""

    documents: list[Document] = field(default_factory=list)
    words: int = 0
    notes: int = 0
    findings: list[Finding] = field(default_factory=list)


@dataclass
class Findings:
    """Everything together, as the person who approves it would want to read it."""

    folder: str
    listing: Listing
    history: History
    structure: Structure
    prose: Prose
    together: list[Finding]

    @property
    def all(self) -> list[Finding]:
        """Every finding, those that took more than one agent first."""
        return [
            *self.together,
            *self.history.findings,
            *self.structure.findings,
            *self.prose.findings,
        ]
