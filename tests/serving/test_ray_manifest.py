"""The RayService of docs/serving: Ray's own schema takes its Serve configuration, and ours its arguments."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

pytest.importorskip("ray")
pytest.importorskip("fastapi")

from clip4str.serving.ray import door
from clip4str.serving.ray.application import NAME, build
from clip4str.serving.ray.bearer import HAPROXY
from clip4str.serving.ray.server_settings import VARIABLE, Settings

MANIFEST = Path(__file__).resolve().parents[2] / "docs" / "serving" / "rayservice.yaml"


def test_the_serve_configuration_is_one():
    from ray.serve.schema import ServeDeploySchema

    given = yaml.safe_load(yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))["spec"]["serveConfigV2"])
    (application,) = ServeDeploySchema.model_validate(given).applications
    settings = Settings(**application.args)
    assert application.import_path == f"{build.__module__}:build" and application.name == NAME
    assert settings.replicas == (2, 8) and settings.need_token
    deployment = build(settings)._bound_deployment
    assert deployment.ray_actor_options["num_gpus"] == 0.5
    scaling = deployment._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas, scaling.target_ongoing_requests) == (2, 8, settings.busy)


def test_every_container_has_the_token_and_the_same_image():
    spec = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))["spec"]["rayClusterConfig"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    containers = [each for group in groups for each in group["template"]["spec"]["containers"]]
    assert len({each["image"] for each in containers}) == 1 and len(containers) == 2
    for each in containers:
        given = {entry["name"]: entry.get("value") for entry in each["env"]}
        assert given == {HAPROXY: "1", door.CALLBACK: door.PATH, VARIABLE: None}
