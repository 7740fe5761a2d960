"""The ids and attributes that people may choose for a run."""

from __future__ import annotations

from collections.abc import Mapping

from .errors import PayloadError


def check_run_id(run_id: str) -> str:
    """A run id that somebody chose. Raises PayloadError where it is none."""
    if not isinstance(run_id, str) or not 1 <= len(run_id) <= 512 or not run_id.isprintable():
        raise PayloadError(f"run_id: expected 1–512 printable characters, got {run_id!r:.80}")
    return run_id


MAX_ATTRIBUTES, MAX_KEY, MAX_VALUE = 64, 256, 256


def check_attributes(attributes: Mapping[str, str]) -> None:
    """Refuse attributes beyond the limits, with PayloadError."""
    for name, value in attributes.items():
        if not isinstance(name, str) or not 1 <= len(name) <= MAX_KEY or not name.isprintable():
            raise PayloadError(f"attribute name: expected 1–{MAX_KEY} printable characters, got {name!r:.80}")
        if not isinstance(value, str):
            raise PayloadError(f"attribute {name}: expected str, got {type(value).__name__}")
        try:
            size = len(value.encode())
        except UnicodeEncodeError:
            raise PayloadError(f"attribute {name}: expected text, got a lone surrogate") from None
        if size > MAX_VALUE:
            raise PayloadError(f"attribute {name}: expected at most {MAX_VALUE} bytes, got {size}")
    if len(attributes) > MAX_ATTRIBUTES:
        raise PayloadError(f"attributes: expected at most {MAX_ATTRIBUTES}, got {len(attributes)}")
