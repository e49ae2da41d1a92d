"""The Ray Serve application: `import_path: clip4str.serving.ray.application:build` in a Serve configuration file."""

from __future__ import annotations

import importlib.util
import math
import platform
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve import Application

from clip4str.core.errors import BackendError, UsageError
from clip4str.core.packaged import PACKAGED
from clip4str.runtime import Recognizer

from ..versions import bundle_version
from .bearer import given_token, needed
from .door import Door
from .http_api import make_api
from .ray_metrics import RayFigures
from .server_settings import VARIABLE, Settings
from .service import Service

NAME = "clip4str"
LONG_SIDE = 1280  # pixels that photos are shrunk to before words are searched, as clip4str photo does
ALL = 100_000  # requests
DRAIN = 60.0  # seconds that a replica which is to go may still answer what it has taken


@serve.deployment(name=NAME)
@serve.ingress()
class Words:
    """A replica: one network, and the API over it. Ready once the network has read a batch."""

    def __init__(self, values: dict[str, Any]) -> None:
        settings = Settings(**values)
        self.token = given_token(settings.token_file)
        if settings.need_token and self.token is None:
            raise UsageError(f"{platform.node()}: {VARIABLE} has no token here")
        needed(_listens_at(), self.token, "what serves here listens at ")
        recognizer = Recognizer.load(
            settings.bundle or PACKAGED, settings.backend, threads=settings.threads, batch_size=settings.batch_size,
            dtype=settings.dtype or None,
        )  # fmt: skip
        here = bundle_version(recognizer.manifest)
        if settings.version and here != settings.version:
            raise BackendError(f"{platform.node()}: the bundle is {here} there, not {settings.version}")
        recognizer.warm_up()
        Door.most = settings.max_waiting  # with HAProxy; Ray opens it afterwards
        alone = recognizer.backend.on_gpu or not recognizer.backend.parallel
        workers = 1 if alone else max(1, math.floor(settings.cpus / settings.threads))

        self.service = Service(recognizer, settings, RayFigures(here), _detector(settings), workers)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return make_api(self.service, self.token)

    def check_health(self) -> None:
        self.service.check()


def build(given: Settings | dict[str, Any]) -> Application:
    """What Ray Serve runs. given: a configuration file's `args` come as they are. A change, as another bundle, starts
    new replicas before old ones go, for which there must be room, or with a `surge` of 0 afterwards."""
    settings = Settings.model_validate(given)
    least, most = settings.replicas
    return Words.options(  # type: ignore[attr-defined]
        ray_actor_options={"num_cpus": settings.cpus, "num_gpus": settings.gpus},
        autoscaling_config={
            "min_replicas": least, "max_replicas": most, "initial_replicas": least,
            "target_ongoing_requests": settings.busy,
        },
        # Replicas refuse by themselves, see Service.admitted. What Ray keeps back waits for up to half a second more
        # after each try, however soon the replica is free.
        max_ongoing_requests=ALL, max_queued_requests=max(64, settings.max_waiting),
        backpressure_config={"status_code": 429, "retry_after_s": 1},
        max_surge_percent=settings.surge, graceful_shutdown_timeout_s=DRAIN, graceful_shutdown_wait_loop_s=0.5,
        health_check_period_s=5, health_check_timeout_s=30,
    ).bind(settings.model_dump())  # fmt: skip


def _listens_at() -> str:
    """The proxies' host: of a Serve configuration file, where that started Serve, else of the command."""
    from ray.serve.context import _get_global_client

    client: Any = _get_global_client()  # raises where there is none
    return client.http_config.host or "every address"


def _detector(settings: Settings) -> Any:
    if not settings.photos or importlib.util.find_spec("cv2") is None or importlib.util.find_spec("rapidocr") is None:
        return None
    from clip4str.video.detect import engine_beside, open_detector

    how = engine_beside(settings.backend, settings.dtype or None)
    return open_detector("auto", long_side=LONG_SIDE, threads=settings.threads, **how)
