"""The page: what people see in a browser."""

from __future__ import annotations

from starlette.routing import BaseRoute


def routes() -> list[BaseRoute]:
    """Every route of the page."""
    return []
