"""JSON as people read it: indented, each kind of value in its tone. Long values are cut, and say so."""

from __future__ import annotations

import json
import re
from typing import Any

from markupsafe import Markup

from ...trail.export.text import clean

_LIMIT = 200_000
"""Characters that are shown of one value."""
_TOKEN = re.compile(
    r'(?P<key>"(?:[^"\\]|\\.)*")(?=:)|(?P<text>"(?:[^"\\]|\\.)*")'
    r"|(?P<number>-?\d[\d.eE+-]*)|(?P<word>\b(?:true|false|null)\b)"
)


def pretty(value: Any) -> Markup:
    """A plain value as indented JSON, with markup for its parts."""
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = repr(value)
    cut = len(text) - _LIMIT
    text, made, last = clean(text[:_LIMIT]), [], 0
    for found in _TOKEN.finditer(text):
        made.append(Markup.escape(text[last : found.start()]))
        made.append(Markup('<span class="j-{}">{}</span>').format(found.lastgroup, found[0]))
        last = found.end()
    made.append(Markup.escape(text[last:]))
    if cut > 0:
        made.append(Markup('\n<span class="j-cut">… {} more characters</span>').format(f"{cut:,}"))
    return Markup("").join(made)
