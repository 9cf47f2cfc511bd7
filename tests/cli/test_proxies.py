"""A proxy that the environment names is never asked for a server on this machine."""

from __future__ import annotations

import os
import urllib.request

import pytest

from cxr.cli.proxies import exempt_loopback
from support.forked_processes import COMMAND, run_forked
from support.loopback import MlflowServer, free_port


def test_a_local_tracking_server_answers_although_the_proxy_leads_nowhere(server: MlflowServer) -> None:
    proxy = f"http://127.0.0.1:{free_port()}"
    command = ("champion", "--registered_name", "nobody-registered-this", "--tracking_uri", server.uri)
    results = [
        run_forked(COMMAND, *command, environment={**os.environ, **proxies})
        for proxies in ({}, {"HTTP_PROXY": proxy, "http_proxy": proxy, "HTTPS_PROXY": proxy})
    ]
    without, behind = ((result.returncode, result.stderr) for result in results)
    assert behind == without
    assert "RESOURCE_DOES_NOT_EXIST" in results[1].stderr  # the server has answered


@pytest.mark.parametrize(
    ("environment", "exempt"),
    [
        ({}, None),
        ({"http_proxy": ""}, None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "localhost,127.0.0.1,::1"),
        (
            {"all_proxy": "http://proxy:3128", "NO_PROXY": " .example.org, localhost,"},
            ".example.org,localhost,127.0.0.1,::1",
        ),
        ({"HTTP_PROXY": "http://proxy:3128", "no_proxy": "a", "NO_PROXY": "b"}, "a,localhost,127.0.0.1,::1"),
        ({"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "*"}, "*"),
    ],
)
def test_the_exemptions_of_the_user_stay(environment: dict[str, str], exempt: str | None) -> None:
    before = dict(environment)
    exempt_loopback(environment)
    if exempt is None:
        assert environment == before
        return
    assert environment["no_proxy"] == environment["NO_PROXY"] == exempt
    for host in ("127.0.0.1:5000", "localhost:5000"):
        assert urllib.request.proxy_bypass_environment(host, {"no": exempt})
