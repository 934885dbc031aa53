"""The configuration of Envoy, as pure functions; test_proxy.py runs it."""

import json
from dataclasses import replace
from typing import Any

from cv_factory.deployment.local.envoy_config import (
    CLUSTERS,
    dynamic_files,
    endpoints,
    route_table,
)
from cv_factory.deployment.local.routes import Backend, Routes

STABLE = Backend("one", 4001, 0.9, grpc_port=4002, version="1")
CANARY = Backend("two", 4003, 0.1, version="2", arm="canary")
SHADOW = Backend("three", 4005, 0.0, 4006, version="3", arm="shadow", mirror_share=0.25)
ROUTES = Routes(7, (STABLE, CANARY, SHADOW))


def resources(files: dict[str, str], name: str) -> list[dict[str, Any]]:
    content = json.loads(files[name])
    assert content["version_info"] == "a"
    return list(content["resources"])


def hosts(routes: Routes, cluster: str, draining: tuple[Backend, ...] = ()) -> list[Any]:
    return [
        (
            host["endpoint"]["address"]["socket_address"]["port_value"],
            host["load_balancing_weight"],
            host["health_status"],
        )
        for host in endpoints(routes, cluster, draining)["endpoints"][0]["lb_endpoints"]
    ]


def test_weights_are_those_of_endpoints_and_what_drains_gets_nothing_new() -> None:
    assert hosts(ROUTES, "http") == [(4001, 900_000, "UNKNOWN"), (4003, 100_000, "UNKNOWN")]
    assert hosts(ROUTES, "grpc") == [(4002, 900_000, "UNKNOWN")]
    alone = Routes(8, (replace(CANARY, weight=0.3),))
    assert hosts(alone, "http", (STABLE,)) == [(4003, 1_000_000, "UNKNOWN"), (4001, 1, "DRAINING")]
    assert hosts(Routes(), "http") == []


def test_a_shadow_is_sent_copies_of_posts_and_grpc_calls_alone() -> None:
    table = route_table(ROUTES)["virtual_hosts"][0]["routes"]
    mirrors = [
        [
            (m["cluster"], m["runtime_fraction"]["default_value"]["numerator"])
            for m in route["route"].get("request_mirror_policies", [])
        ]
        for route in table
        if "safe_regex" not in route["match"]
    ]
    assert mirrors == [[], [("shadow-grpc-three", 250_000)], [("shadow-http-three", 250_000)], []]
    clusters = resources(dynamic_files(ROUTES, "a", "::", 1), CLUSTERS)
    names = [c["name"] for c in clusters]
    assert names == ["http", "grpc", "shadow-http-three", "shadow-grpc-three", "metrics"]
    # A shadow that hangs costs no more than some copies, nor scrapes more than some threads.
    limits = [c["circuit_breakers"]["thresholds"][0] for c in clusters]
    assert [n["max_requests"] for n in limits] == [2**31, 2**31, 64, 64, 2**31]
    assert [n["max_connections"] for n in limits] == [2**31, 2**31, 2**31, 2**31, 4]
