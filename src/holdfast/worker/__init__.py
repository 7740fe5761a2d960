"""Workers: who advances runs and executes steps."""

from .worker import Worker

__all__ = ["Worker"]
