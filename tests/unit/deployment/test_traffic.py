"""Traffic of an endpoint: who is given what, and how it is stored with a deployment."""

import json
from pathlib import Path
from typing import Any

import pytest

from cv_factory.config.deployment import EndpointConfig
from cv_factory.deployment.deployment import Deployment
from cv_factory.deployment.traffic import Share, Sticky, TlsFiles, Traffic
from cv_factory.deployment.verify import VerificationResult

TLS = TlsFiles(Path("/certificate"), Path("/key"))
TRAFFIC = Traffic(
    {"one": Share(0.6), "two": Share(0.2, "canary"), "three": Share(0.5, "shadow")},
    Sticky("header", "X-User"),
    TLS,
)


def test_weights_are_fractions_of_the_requests_without_the_shadows() -> None:
    assert TRAFFIC.weights == pytest.approx({"one": 0.75, "two": 0.25})
    assert TRAFFIC.shadows == {"three": 0.5}
    assert [TRAFFIC.describe(n) for n in ("one", "three", "gone")] == ["75%", "copies of 50%", "0%"]
    assert Traffic().weights == {}


def test_what_others_were_given_goes_to_those_that_stay() -> None:
    without_canary = TRAFFIC.only({"one", "three"})
    assert without_canary.weights == {"one": 1.0}
    assert without_canary.shadows == {"three": 0.5}
    assert TRAFFIC.only({"two"}).shares == {"two": Share(1.0)}, "alone, it is no canary"
    assert TRAFFIC.only({"three"}).weights == {}, "a shadow is never given requests"
    assert without_canary.sticky == TRAFFIC.sticky
    assert without_canary.tls == TLS


def test_new_weights_keep_arms_and_shadows() -> None:
    assert TRAFFIC.with_weights({"one": 1.0, "two": 1.0}).shares == {
        "three": Share(0.5, "shadow"), "one": Share(0.5), "two": Share(0.5, "canary"),
    }  # fmt: skip
    assert TRAFFIC.with_weights({"three": 1.0}).shares == {"three": Share(1.0)}
    assert TRAFFIC.all_to("two").shares == {"two": Share(1.0)}
    assert TRAFFIC.renamed({"two": "2"}).shares == {"2": Share(0.2, "canary")}


@pytest.mark.parametrize(
    ("settings", "sticky", "tls"),
    [
        ({}, TRAFFIC.sticky, TLS),
        ({"sticky": {"by": "none"}, "tls": {}}, None, None),
        ({"sticky": {"by": "api_key"}}, Sticky("api_key"), TLS),
        (
            {"sticky": {"by": "cookie", "name": "id"}, "tls": {"certificate": "c", "key": "~/k"}},
            Sticky("cookie", "id"),
            TlsFiles(Path("c").absolute(), Path.home() / "k"),
        ),
    ],
)
def test_settings_that_are_given_replace_the_present_ones(
    settings: dict[str, Any], sticky: Sticky | None, tls: TlsFiles | None
) -> None:
    changed = TRAFFIC.with_settings(EndpointConfig.model_validate(settings))
    assert (changed.shares, changed.sticky, changed.tls) == (TRAFFIC.shares, sticky, tls)


def test_a_deployment_is_stored_with_the_traffic_before_it(tmp_path: Path) -> None:
    deployment = Deployment("pets", "2", "f", "id", "http://x", 0.2, TRAFFIC, True, "staging",
                            VerificationResult("http://x", "2", 20, 0.0), "shadow")  # fmt: skip
    deployment.save(tmp_path)
    assert Deployment.load(tmp_path) == deployment


def test_a_deployment_of_an_earlier_release_is_loaded(tmp_path: Path) -> None:
    before = Traffic({"old": Share(1.0)})
    Deployment("pets", "2", "f", "id", "http://x", 1.0, before, True, "staging").save(tmp_path)
    header = tmp_path / "deployment.json"
    stored = json.loads(header.read_text())
    body = stored.get("body", stored)
    del body["arm"]
    body["replaced"] = {"old": 1.0}
    header.write_text(json.dumps(stored))
    loaded = Deployment.load(tmp_path)
    assert (loaded.replaced, loaded.arm, loaded.verification) == (before, "stable", None)
