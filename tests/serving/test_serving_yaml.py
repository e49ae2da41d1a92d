"""What docs/serving/ has for Kubernetes, by its own schemas, and the names that its parts call each other by."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs" / "serving"


def objects(path: Path) -> list[dict]:
    yaml = pytest.importorskip("yaml")
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def kubernetes_own(one: dict) -> list[dict]:
    """What Kubernetes itself has a schema for: of a RayService its pods."""
    if one["kind"] == "RayService":
        cluster = one["spec"]["rayClusterConfig"]
        groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
        return [{"apiVersion": "v1", "kind": "PodTemplate", "template": group["template"]} for group in groups]
    return [one] if one["apiVersion"].count(".") <= 1 or one["apiVersion"].endswith("k8s.io/v1") else []


@pytest.mark.parametrize("path", sorted(DOCS.glob("*.yaml")), ids=lambda path: path.name)
def test_kubernetes_takes_them(path):
    validator = pytest.importorskip("kubernetes_validate", reason="make test-serving")
    known = [each for one in objects(path) for each in kubernetes_own(one)]
    for one in known:
        validator.validate(one, "1.30", strict=True)
    with pytest.raises(validator.ValidationError):
        validator.validate({**known[0], "speck": {}}, "1.30", strict=True)


def test_tritons_parts_call_each_other_by_their_names():
    deployment, service, budget, scaler = objects(DOCS / "triton.yaml")
    (rules,) = objects(DOCS / "triton-metrics.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels == deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    assert labels == budget["spec"]["selector"]["matchLabels"]
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    (metric,) = scaler["spec"]["metrics"]
    assert f"as: {metric['pods']['metric']['name']}\n" in rules["data"]["config.yaml"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    ports = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    assert deployment["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"] == "8002"


def test_tritons_options_and_metrics_are_the_servers(triton_packages, tmp_path):
    """Of the deployment's arguments and the rules' series: a running server knows them."""
    from clip4str.benchmarks.serving_load.triton_server import TritonServer
    from clip4str.core.packaged import PACKAGED
    from clip4str.runtime.bundle import Bundle
    from clip4str.serving.triton.options import Serving
    from clip4str.serving.triton.repository import write_repository

    write_repository(Bundle.open(PACKAGED), tmp_path / "repo", Serving(), False, lambda _: None)
    (container,) = objects(DOCS / "triton.yaml")[0]["spec"]["template"]["spec"]["containers"]
    own = "--model-repository", "--disable-auto-complete-config"  # which every server here is given
    options = [one.replace("$(ADMIN_KEY)", "secret") for one in container["args"][1:] if not one.startswith(own)]
    assert len(options) == len(container["args"]) - 3
    with TritonServer(tmp_path / "repo", tmp_path, options=options) as server:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert server.get(container[probe]["httpGet"]["path"])[0] == 200
        assert server.get("/v2/repository/index", "POST")[0] == 403
        metrics = server.get("/metrics", port=server.metrics)[1]
    rules = objects(DOCS / "triton-metrics.yaml")[0]["data"]["config.yaml"]
    series = set(re.findall(r"nv_\w+", rules))
    assert len(series) == 2 and all(f'{name}{{model="clip4str"' in metrics for name in series)
