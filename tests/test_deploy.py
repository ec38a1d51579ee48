"""What stands in deploy/ is what Kubernetes and this version's command line take."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from openlumiere.cli import build_parser
from openlumiere.cli.mcp import KEY_VARIABLE
from openlumiere.cli.serve import SECRET_VARIABLE
from openlumiere.cli.server_options import DATABASE_VARIABLE

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
MANIFESTS = sorted(DEPLOY.glob("*.yaml"))
OURS = {DATABASE_VARIABLE, KEY_VARIABLE, SECRET_VARIABLE}
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


def pods(value: Any) -> Iterator[dict[str, Any]]:
    """Every pod's specification, however deep."""
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for inner in value.values():
            yield from pods(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from pods(inner)


CONTAINERS = [
    pytest.param(pod, container, id=f"{path.stem}-{container['name']}")
    for path in MANIFESTS for document in documents(path) for pod in pods(document) for container in pod["containers"]
]  # fmt: skip
LUMIERE = [case for case in CONTAINERS if case.values[1]["image"].startswith("openlumiere:")]


def instructions(name: str) -> list[str]:
    """The Dockerfile's instructions of a kind, continued lines joined."""
    joined = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    return [line.removeprefix(name).strip() for line in joined.splitlines() if line.startswith(f"{name} ")]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_are_valid(path: Path):
    validate = pytest.importorskip("kubernetes_validate")
    for document in documents(path):
        if document["apiVersion"] == "ray.io/v1":  # no schema of Kubernetes': its pods alone
            for number, pod in enumerate(pods(document)):
                whole = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"pod-{number}"}, "spec": pod}
                validate.validate(whole, validate.latest_version(), strict=True)
        else:
            validate.validate(document, validate.latest_version(), strict=True)


def test_a_misspelt_key_would_be_found():
    validate = pytest.importorskip("kubernetes_validate")
    wrong = documents(DEPLOY / "kubernetes.yaml")[-1]
    wrong["spec"]["template"]["spec"]["containers"][0]["argz"] = []
    with pytest.raises(Exception, match="argz"):
        validate.validate(wrong, validate.latest_version(), strict=True)


@pytest.mark.parametrize(("pod", "container"), LUMIERE)
def test_the_command_line_takes_their_arguments(pod: dict[str, Any], container: dict[str, Any]):
    if not (words := container.get("args")):
        return  # Ray's own
    args = build_parser().parse_args(words)
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {str(args.data), args.results} <= mounted


def test_the_batch_is_a_command_line_of_ours():
    (job,) = documents(DEPLOY / "rayjob.yaml")
    program, *words = shlex.split(job["spec"]["entrypoint"])
    assert program == "lumiere"
    assert words[0] == "generate"
    assert build_parser().parse_args(words).ray == "auto"
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    assert f"ray=={job['spec']['rayClusterSpec']['rayVersion']}" in lock


def test_server_and_workers_agree():
    deployments = {
        document["metadata"]["name"]: document for document in documents(DEPLOY / "kubernetes.yaml")
        if document["kind"] == "Deployment"
    }  # fmt: skip
    serve, worker = (
        build_parser().parse_args(next(pods(deployments[name]))["containers"][0]["args"])
        for name in ("lumiere-serve", "lumiere-worker")
    )
    assert serve.workers == 0
    assert serve.keys
    for name in ("results", "model", "expire_days", "webhook"):
        assert getattr(serve, name) == getattr(worker, name)


@pytest.mark.parametrize(("pod", "container"), CONTAINERS)
def test_containers_have_no_rights_and_no_secrets(pod: dict[str, Any], container: dict[str, Any]):
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    assert container["resources"]["requests"]["memory"]
    assert container["resources"]["limits"]["memory"]
    claims = {volume["name"] for volume in pod.get("volumes", [])} | {"data"}
    assert {mount["name"] for mount in container["volumeMounts"]} <= claims
    for variable in container.get("env", []):
        if variable["name"].startswith("LUMIERE_"):
            assert variable["name"] in OURS
        if re.search("PASSWORD|SECRET|URL|KEY", variable["name"]):
            assert "secretKeyRef" in variable["valueFrom"]


def test_secrets_are_those_that_the_manifest_tells_how_to_make():
    text = (DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")
    wanted = set(re.findall(r"key: ([\w-]+)", text))
    assert wanted == set(re.findall(r"--from-literal=([\w-]+)=", text))


def test_probes_ask_addresses_that_the_server_has():
    pytest.importorskip("fastapi")
    from openlumiere.app.api.health import router

    routes = {route.path for route in router.routes}
    text = (DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")
    asked = set(re.findall(r"httpGet: \{path: (\S+),", text))
    asked |= set(re.findall(r"http://127\.0\.0\.1:8000(/\w+)", DOCKERFILE))
    assert asked == {"/healthz"}
    assert asked <= routes


def test_the_image_is_built_of_what_is_here():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8")
    for line in instructions("COPY"):
        if line.startswith("--from"):
            continue
        *sources, _ = line.split()
        for name in sources:
            assert (ROOT / name).exists()
            assert f"\n!{name.removeprefix('./')}\n" in ignored
    assert any("--constraint requirements.lock" in line for line in instructions("RUN"))
    version = re.search(r"TORCH_VERSION := (\S+)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert version is not None
    assert f"TORCH_VERSION={version[1]}" in instructions("ARG")


def test_the_image_serves_as_a_user_without_rights():
    *_, user = instructions("USER")
    assert user.split(":")[0].isdigit()
    assert int(user.split(":")[0]) > 0
    assert DOCKERFILE.index("\nUSER ") < DOCKERFILE.index("\nENTRYPOINT ")
    (entry,), (words,) = instructions("ENTRYPOINT"), instructions("CMD")
    assert json.loads(entry) == ["lumiere"]
    args = build_parser().parse_args(json.loads(words))
    assert args.host == "0.0.0.0"
    assert str(args.data) in instructions("VOLUME")
    assert str(args.port) in instructions("EXPOSE")
    assert instructions("HEALTHCHECK")
