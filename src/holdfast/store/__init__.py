"""Storage: the contract (`base`), the rules every backend applies (`rules`), and the backends."""

from .base import Store
from .messages import Append, Appended, News
from .rows import Head, Hook, Timer
from .url import open_store

__all__ = ["Append", "Appended", "Head", "Hook", "News", "Store", "Timer", "open_store"]
