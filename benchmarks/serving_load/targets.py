"""The servers that can be loaded, by name."""

from __future__ import annotations

from collections.abc import Callable

from .load_target import Setup, Target


def _triton(setup: Setup) -> Target:
    from .triton_target import TritonTarget

    return TritonTarget(setup)


def _ray(setup: Setup) -> Target:
    from .ray_target import RayTarget

    return RayTarget(setup)


def _haproxy(setup: Setup) -> Target:
    from .ray_target import HAProxyTarget

    return HAProxyTarget(setup)


TARGETS: dict[str, Callable[[Setup], Target]] = {"triton": _triton, "ray": _ray, "ray-haproxy": _haproxy}
