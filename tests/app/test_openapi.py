"""What the API says of itself is so: schemathesis asks each route for what it takes, and for what it doesn't."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from api_tools import Api, listening
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import positive_data_acceptance

from openlumiere.app.settings import Limits, RequestLimits

pytestmark = pytest.mark.slow
_EXAMPLES = 12  # of each route


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    limits = Limits(max_queued=10**6, max_queued_per_owner=10**6)
    with listening(tmp_path_factory.mktemp("data"), limits=limits, requests=RequestLimits(per_minute=10**6)) as found:
        found.finish(found.ask()["id"])
        yield found
        found.check_tidy()


def test_every_route_is_described_with_an_example_and_its_errors(api: Api) -> None:
    described = api.client.get("/openapi.json").json()
    paths: dict[str, Any] = described["paths"]
    known = "/v1/videos", "/v1/videos/{id}", "/v1/videos/{id}/content", "/v1/videos/models", "/v1/detect", "/healthz"
    assert set(known) <= set(paths)
    for path, operations in paths.items():
        for method, operation in operations.items():
            assert operation["description"], (method, path)
            assert "422" not in operation["responses"]
            assert "400" in operation["responses"]
            body = operation.get("requestBody")
            for content in body["content"].values() if body else ():
                name = content["schema"].get("$ref", "").rpartition("/")[2]
                model = described["components"]["schemas"][name] if name else content["schema"]
                assert model["examples"], (method, path)


def test_schemathesis_finds_nothing(api: Api) -> None:
    schema = schemathesis.openapi.from_dict(api.client.get("/openapi.json").json())
    failures: list[str] = []
    address = str(api.client.base_url).rstrip("/")
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path.endswith(("/events", "/sync")):  # they wait, for what no worker makes here
            continue

        @seed(1)
        @settings(
            max_examples=_EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def ask(case: schemathesis.Case) -> None:
            api.parts.store.heartbeat("worker", model="emoji", state="idle")
            answer = case.call(base_url=address)
            try:
                # What a model can do, no schema says: well-formed requests may be refused.
                case.validate_response(answer, excluded_checks=[positive_data_acceptance])
            except FailureGroup as group:
                failures.extend(f"{case.method} {case.path}: {error}" for error in group.exceptions)
            except AssertionError as error:
                failures.append(f"{case.method} {case.path}: {error}")

        ask()
    assert not failures, "\n\n".join(failures[:10])
