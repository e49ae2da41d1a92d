"""In Pillow's place where gpu_suite.py runs on a bare machine: modules that import Pillow load, and nothing works."""

from typing import Any


class _Anything(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls


class Missing(Exception, metaclass=_Anything):
    def __init__(self, *given: object) -> None:
        raise ImportError("this needs Pillow: pip install pillow")


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return Missing
