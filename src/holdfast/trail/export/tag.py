"""HTML that cannot be broken by text: what is not made by `tag` is escaped."""

from __future__ import annotations

from html import escape

from .text import clean

_ALONE = frozenset({"meta"})


class Html(str):
    """Markup that `tag` made; every other string is text."""

    __slots__ = ()


Child = str | None


def tag(name: str, /, *children: Child, **attributes: str | bool | None) -> Html:
    """An element. Text among its children and in its attributes is escaped; None and False are left out.

    An underscore at the end of an attribute's name is dropped: `class_`.

    Example:
        tag("p", "5 < 6 ", tag("b", "indeed"), class_="proof")
    """
    given = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _ALONE:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Html:
    """Elements and text one after another."""
    return Html("".join(_shown(child) for child in children if child is not None))


def _shown(child: str) -> str:
    return child if isinstance(child, Html) else escape(clean(child))


def _attribute(key: str, value: str | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = key.removesuffix("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(clean(value))}"'
