"""The OpenAPI against what the service does."""

from __future__ import annotations

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from serving import app_of
from starlette.testclient import TestClient

from threefold.serve.refusal import CODES

SERVICE = app_of()
SERVICE.state.service.ready = True
OPENAPI = schemathesis.openapi.from_asgi("/openapi.json", SERVICE)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]


@OPENAPI.parametrize()
@settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
def test_the_service_does_what_its_openapi_says(case):
    response = case.call()
    refused = response.status_code == 413  # a refusal as well, which `negative_data_rejection` does not know
    case.validate_response(
        response, checks=[check for check in CHECKS if not (refused and check is negative_data_rejection)]
    )


def test_the_openapi_has_every_route_with_its_answers():
    paths = OPENAPI.raw_schema["paths"]
    assert set(paths) == {"/v1/read", "/v1/model", "/healthz", "/readyz", "/metrics"}
    for methods in paths.values():
        for route in methods.values():
            assert route["summary"] and "200" in route["responses"]
            assert not {int(status) for status in route["responses"]} - {200, *(status for status, _ in CODES.values())}


def test_there_is_no_page_that_needs_another_host():
    client = TestClient(app_of())
    assert [client.get(path).status_code for path in ("/docs", "/redoc", "/openapi.json")] == [404, 404, 200]
