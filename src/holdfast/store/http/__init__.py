"""The store behind `holdfast serve`: `holdfast.connect("http://127.0.0.1:8470")`. Extra `server`."""

from .store import HttpStore

__all__ = ["HttpStore"]
