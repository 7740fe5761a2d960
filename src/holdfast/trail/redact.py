"""Secrets are taken out before anything is written: a trail is committed, sent around and read by models.

    >>> redact({"content": "export GITHUB_TOKEN=ghp_0123456789abcdefghijABCDEFGHIJ012345"})
    {'content': 'export GITHUB_TOKEN=[redacted:github-token]'}

Guarantee: text that matches a pattern is never written; redacting twice changes nothing more; the time grows
with the size of the data and with nothing else, whatever the data. That rests on patterns that begin with a
fixed text, are bounded or possessive, and are tried on text alone that holds that fixed text.

What stays: commit hashes, UUIDs, trail ids, base64 images and prose ("the token is refreshed"), and code that
hands a secret on without showing it (`password=settings.password`). So a secret that looks like a word and
stands in a sentence stays too: this is a net below careful writers, and no licence to write secrets.

Rejected: one large alternation over all text (four times slower on text without secrets than this), and a
measure of randomness (hashes and ids are as random as keys).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec

from ..errors import PayloadError

Redact = Callable[[Any], Any]
"""What a folder calls with the JSON data of each entry before it is written; it returns the data to write."""


@dataclass(frozen=True)
class Pattern:
    r"""A kind of secret: what it is called, and how it looks. A group named `secret` is what is replaced.

    `cues` are texts of which one stands in everything that the regex matches: they make it quick. Without
    them the regex is tried on all text.

    Example:
        Pattern("customer-key", r"\bcust_[0-9a-f]{32}\b", cues=("cust_",))
    """

    what: str
    regex: str
    cues: Sequence[str] = ()
    compiled: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "compiled", re.compile(self.regex, re.ASCII))

    def replace(self, text: str) -> str:
        """The text without this kind of secret."""
        if self.cues and not any(cue in text for cue in self.cues):
            return text
        return self.compiled.sub(self._marked, text)

    def _marked(self, match: re.Match[str]) -> str:
        whole, mark = match.group(), f"[redacted:{self.what}]"
        if "secret" not in self.compiled.groupindex:
            return mark
        start, end = match.span("secret")
        return whole if start < 0 else whole[: start - match.start()] + mark + whole[end - match.start() :]


_ESCAPED = r"(?<=\\[nrt])"  # a line feed may be two characters: JSON inside of a string
_START = rf"(?:(?<![A-Za-z0-9_-])|{_ESCAPED})"
_APART = rf"(?:(?<![A-Za-z0-9_+/-])|{_ESCAPED})"  # not in the midst of base64


def _token(what: str, regex: str, *cues: str) -> Pattern:
    return Pattern(what, _START + regex, cues)


PATTERNS: tuple[Pattern, ...] = (
    Pattern(
        "private-key",  # one that is cut off has only lines of base64 taken with it, and no prose
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:[^-]*+(?:-(?!----)[^-]*+)*+-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
        r"|(?:(?:\s|\\[nr])*+[A-Za-z0-9+/=]{16,}+)++)",
        ("-----",),
    ),
    Pattern("aws-key", _APART + r"(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9+/=])", ("AKIA", "ASIA")),
    _token(
        "github-token",
        r"(?:gh[pousr]_[A-Za-z0-9]{20,255}+|github_pat_\w{22,255}+)",
        *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    ),
    _token(
        "gitlab-token",
        r"gl(?:pat|ptt|dt|rt|cbt|ft|imt|soat|agent|oas)-[\w-]{20,}+",
        *("glpat-", "glptt-", "gldt-", "glrt-", "glcbt-", "glft-", "glimt-", "glsoat-", "glagent-", "gloas-"),
    ),
    _token("slack-token", r"(?:xox[a-z]|xapp)-[\w-]{10,}+", *(f"xox{c}-" for c in "abcdeoprs"), "xapp-"),
    Pattern("slack-webhook", r"hooks\.slack\.com/services/(?P<secret>[\w/]{20,}+)", ("hooks.slack.",)),
    _token(
        "stripe-key",
        r"(?:[sr]k_(?:live|test)|whsec)_\w{10,}+",
        *("sk_live_", "sk_test_", "rk_live_", "rk_test_", "whsec_"),
    ),
    _token("anthropic-key", r"sk-ant-[\w-]{16,}+", "sk-ant-"),
    _token("openai-key", r"sk-(?!ant-)(?=[\w-]{0,200}\d)[\w-]{20,}+", "sk-"),
    Pattern("google-key", _APART + r"AIza[\w-]{35}(?![A-Za-z0-9_+/=-])", ("AIza",)),
    _token("google-token", r"(?:ya29\.|GOCSPX-)[\w-]{20,}+", "ya29.", "GOCSPX-"),
    _token("npm-token", r"npm_[A-Za-z0-9]{36}+", "npm_"),
    _token("pypi-token", r"pypi-AgE[\w-]{40,}+", "pypi-"),
    _token("huggingface-token", r"hf_[A-Za-z0-9]{30,}+", "hf_"),
    _token("sendgrid-key", r"SG\.[\w-]{16,64}\.[\w-]{16,}+", "SG."),
    _token("vault-token", r"hv[sb]\.[\w-]{24,}+", "hvs.", "hvb."),
    _token("jwt", r"eyJ[\w-]{5,}+\.eyJ[\w-]{5,}+\.[\w-]*+", "eyJ"),
    Pattern(
        "password",  # of a URL: scheme://name:password@host, connection strings among them
        r"://[^\s/@:\"'`<>\[\]]{0,100}+:(?P<secret>(?![$<{*\[%])[^\s/\"'`<>\[\]]{1,200})@",
        ("@",),
    ),
    Pattern(
        "signature",
        r"[?&;](?:[Xx]-[Aa]mz-)?[Ss]ig(?:nature)?=(?P<secret>[\w%+/=.-]{16,}+)",
        ("ig=", "ignature="),
    ),
)
"""The secrets that are known by their form."""

_NAMED = re.compile(
    r"(?:.*pass(?:word|wd|phrase)|(?:.*[^a-z])?(?:pwd|secret|token|authorization|cookie"
    r"|secret[_-]?(?:access[_-]?)?key|(?:api|access|account|private|signing|encryption)[_-]?key))$"
)
_NO_SECRET = re.compile(
    r"(?:^|[_-])(?:next|prev|previous|page|start|stop|end|eos|bos|pad|unk|mask|sep|cls|special|continuation"
    r"|sync)(?:[_-]page)?[_-]?token$"
)
_HOLDER = re.compile(r"(?:^|[_-])(?:secrets|passwords|credentials)$")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_MARK = re.compile(r"\[redacted:[^\]\s]{1,100}\]\Z")

# What is assigned to a word that says so. Each begins with a fixed text and is tried on lower-case text.
_IS = r"[0-9]{0,2}\\{0,3}[\"'`]?\]?(?:\s{0,4}(?P<sign>:=|=>|[:=])\s{0,4}|\s{1,4})"
_KEYS = (
    "api_key api-key apikey access_key access-key accesskey account_key accountkey private_key private-key"
)
_WORDS = {
    "pass": re.compile("pass(?:word|wd|phrase)" + _IS),
    "pwd": re.compile("pwd" + _IS),
    "secret": re.compile(r"secret(?:[_-]?(?:access[_-]?)?key)?" + _IS),
    "token": re.compile("token" + _IS),
    "key": re.compile(f"key(?:{'|'.join(f'(?<={key})' for key in _KEYS.split())})" + _IS),
    "authorization": re.compile(
        "authorization" + _IS + r"\\{0,3}[\"'`]?(?P<scheme>(?:bearer|basic|token|digest|apikey)\s{1,4})?"
    ),
    "bearer": re.compile(r"bearer(?P<sign>)\s{1,4}"),
}
_CUES = [word.encode() for word in (*_WORDS, "cookie", "credentials")]
_QUOTED = re.compile(r"(\\{0,3}[\"'`])(?P<value>.{1,200}?)\1")
_BARE = re.compile(r"(?P<value>[^\s\"'`;&\\<>{}()\[\]|]{3,200}+)(?![(\[])")
_REST = re.compile(r"[^\s\"'`;&\\<>{}()\[\]|]*")
_STANDS_FOR = re.compile(  # a value that shows no secret: a placeholder, an empty value, a variable
    r"[\[<{$%*]|\.\.\.|x{3,}|(?:none|null|nil|true|false|undefined|str|string|env|required|optional)\W*\Z"
    r"|(?:your|my)[-_ ]",
    re.IGNORECASE,
)
_CODE = re.compile(
    r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+[,.]?\Z|[a-z_]*(?:password|passwd|secret|token|key)[a-z_]*,?\Z"
)
_PROSE = re.compile(r"(?:[A-Z]?[a-z]*|[A-Z]+|[0-9]+)\Z")
_PARTS = re.compile(r"[-_./:@,]+")
_RARE = "_-.="
_SHORTEST = len("pwd=abc")
_ROUNDS = 8


class Redactor:
    r"""Takes secrets out of JSON data: of every string and key, however deep.

    `also` adds patterns to the known ones; `patterns` replaces those. `names=False` leaves out what is found by
    its name: values of keys like "password", and assignments like `api_key: …` in text. Data without a
    secret comes back as the same object.

    Example:
        redact = Redactor(also=[Pattern("customer-key", r"\bcust_[0-9a-f]{32}\b")])
        folder = TrailFolder(redact=redact)
    """

    def __init__(
        self,
        patterns: Iterable[Pattern] = PATTERNS,
        *,
        also: Iterable[Pattern] = (),
        names: bool = True,
    ) -> None:
        self.patterns = (*patterns, *also)
        self.names = names
        cues = sorted({cue for pattern in self.patterns for cue in pattern.cues})
        self._anchors = [_anchored(cues, last) for last in _RARE if any(cue.endswith(last) for cue in cues)]
        self._plain = [cue.encode() for cue in cues if cue[-1] not in _RARE]
        self._cued = [(pattern, [cue.encode() for cue in pattern.cues]) for pattern in self.patterns]
        self._bare = tuple(pattern for pattern in self.patterns if not pattern.cues)

    def __call__(self, data: Any) -> Any:
        """The data without secrets. Raises PayloadError for data that is nested too deep for JSON."""
        try:
            for _ in range(_ROUNDS):  # a mark may make what stands beside it suspect: so twice is as once
                suspects, names = self._suspected(data)
                if not suspects and not names:
                    return data
                before, data = data, _Pass(suspects, names).data(data, secret=False)
                if data is before:
                    return data
            return data
        except RecursionError:
            raise PayloadError("redact: expected JSON data, got data that is nested too deep") from None

    def _suspected(self, data: Any) -> tuple[Sequence[Pattern], bool]:
        """The patterns that may match somewhere, and whether names may tell: mostly none, and quickly told."""
        try:
            text = _encode(data)
        except (UnicodeEncodeError, TypeError, ValueError):
            return self.patterns, self.names  # lone surrogates, or no JSON data: look at each string
        lower = text.lower()
        names = self.names and any(word in lower for word in _CUES)
        if any(anchor.search(text) for anchor in self._anchors) or any(cue in text for cue in self._plain):
            return [
                pattern for pattern, found in self._cued if not found or any(map(text.__contains__, found))
            ], names
        return self._bare, names


class _Pass:
    """One go over some data, with what is suspected in it."""

    def __init__(self, patterns: Sequence[Pattern], names: bool) -> None:
        self.patterns = patterns
        self.names = names

    def data(self, data: Any, *, secret: bool) -> Any:
        if isinstance(data, str):
            return _whole(data) if secret else self.text(data)
        if isinstance(data, list | tuple):
            if not secret and any(isinstance(item, str) and "PRIVATE KEY" in item for item in data):
                data = self._lines(data)
            new = [self.data(item, secret=secret) for item in data]
            return data if all(map(_is, new, data)) else new
        if isinstance(data, dict):
            return self._object(data, secret)
        return data

    def _lines(self, data: Sequence[Any]) -> Sequence[Any]:
        """A file's lines as a list, in which a block goes over several of them."""
        if not all(isinstance(item, str) for item in data):
            return data
        whole = "\n".join(data)
        new = self.text(whole)
        return data if new == whole else new.split("\n")

    def _object(self, data: dict[Any, Any], secret: bool) -> dict[Any, Any]:
        new: dict[Any, Any] = {}
        for key, value in data.items():
            name = self.text(key) if isinstance(key, str) else key
            inside = secret
            if self.names and isinstance(key, str) and not inside:
                told = _told_by(key)
                inside = told == "all" or (told == "value" and isinstance(value, str | list | tuple))
            new[name if name == key else _unused(name, new, data)] = self.data(value, secret=inside)
        return data if all(map(_is, new.values(), data.values())) and new.keys() == data.keys() else new

    def text(self, text: str) -> str:
        for _ in range(_ROUNDS):  # what is left after a replacement is looked at again: so twice is as once
            new = text
            for pattern in self.patterns:
                new = pattern.replace(new)
            if self.names and len(new) >= _SHORTEST:
                new = _without_assigned(new)
            if new == text:
                break
            text = new
        return text


def _anchored(cues: Sequence[str], last: str) -> re.Pattern[bytes]:
    """One search for all cues with the same last character, quick because that character is rare."""
    before = "|".join(f"(?<={re.escape(cue)})" for cue in cues if cue.endswith(last))
    return re.compile(f"{re.escape(last)}(?:{before})".encode())


def _is(a: object, b: object) -> bool:
    return a is b


def _whole(value: str) -> str:
    return value if not value.strip() or _MARK.match(value) else "[redacted:secret]"


def _unused(name: str, taken: dict[Any, Any], later: dict[Any, Any]) -> str:
    """A key for an entry whose own key held a secret; no entry is lost to one of the same name."""
    number, unused = 1, name
    while unused in taken or unused in later:
        number += 1
        unused = f"{name} {number}"
    return unused


@lru_cache(1024)
def _told_by(key: str) -> str:
    """What a key says of its value: that all in it is secret, that the value itself is, or nothing."""
    name = key[-100:]
    name = name.lower() if name.isupper() else _CAMEL.sub("_", name).lower()
    if _HOLDER.search(name):
        return "all"
    return "value" if _NAMED.match(name) and not _NO_SECRET.search(name) else ""


def _without_assigned(text: str) -> str:
    """The text without values that are assigned to a word such as password, token or api_key."""
    lower = _lower(text)
    spans: list[tuple[int, int, str]] = []
    for word, regex in _WORDS.items():
        end = 0
        for match in regex.finditer(lower) if word in lower else ():
            if match.start() >= end and (span := _assigned(text, match, word)) is not None:
                spans.append(span)
                end = span[1]  # what follows in the same value is not looked at again
    pieces: list[str] = []
    end = 0
    for start, stop, what in sorted(spans):
        if start >= end:
            pieces += [text[end:start], f"[redacted:{what}]"]
            end = stop
    return "".join([*pieces, text[end:]]) if spans else text


def _lower(text: str) -> str:
    """The text in lower case, with every character where it was."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(low if len(low := char.lower()) == 1 else char for char in text)


def _assigned(text: str, match: re.Match[str], word: str) -> tuple[int, int, str] | None:
    """From where to where a secret stands behind a word, and what it is called; None if there is none."""
    found = _QUOTED.match(text, match.end()) or _BARE.match(text, match.end())
    if found is None or _STANDS_FOR.match(found["value"]):
        return None
    value, start, end = found["value"], *found.span("value")
    quoted = start > match.end()
    if not quoted and (_CODE.match(value) or (word == "pwd" and value[0] in "/~.")):
        return None
    if match["sign"] is None and not _is_option(text, match.start()):
        return None
    what = {"pass": "password", "pwd": "password", "bearer": "token"}.get(word, word)
    if what == "password":
        sure = quoted or match["sign"] != ":" or _is_line(text, match.start(), end)
    else:
        sure = word == "authorization" and match["scheme"] is not None
    if not sure and not _looks_secret(value, 4 if what == "password" else 8):
        return None
    rest = None if quoted else _REST.match(text, end)
    return start, rest.end() if rest else end, what


def _is_option(text: str, start: int) -> bool:
    """Whether the word at `start` is that of a command's option: `--db-password hunter2`."""
    return re.search(r"--[\w-]{0,40}\Z", text[max(0, start - 42) : start]) is not None


def _is_line(text: str, start: int, end: int) -> bool:
    """Whether a name and its value make a line of their own, as in a configuration file."""
    before = text.rfind("\n", max(0, start - 80), start) + 1
    head = text[before or max(0, start - 80) : start]
    return re.fullmatch(r"[\s\w.\"'-]{0,80}", head) is not None and text[end : end + 1] in ("", "\n", "\r")


def _looks_secret(value: str, length: int) -> bool:
    """Whether a value is no word, no number and no words joined by hyphens."""
    parts = _PARTS.split(value[:500])
    return any(len(part) >= length and not _PROSE.match(part) for part in parts)


_encode = msgspec.json.Encoder().encode

redact = Redactor()
"""The redaction that a folder uses if it is told nothing else."""
