"""What ZenML's own commands may serve."""

from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from registry import service_events
from registry.permissions import TransitionRefusedError
from registry.standing import GateStanding
from stacks.flavors.bento import BentoDeployer


@pytest.mark.parametrize(
    ("standing", "problem"),
    [
        (GateStanding(2, "f"), None),
        (GateStanding(2, "", problem="was not registered"), None),
        (GateStanding(2, "f", failed=("accuracy at least 1",)), "failed 1 of 0 gates"),
        (GateStanding(2, "other"), "judged with the predictor other, and this is f"),
    ],
)
def test_zenml_starts_no_service_that_failed_a_gate(
    monkeypatch: pytest.MonkeyPatch, standing: GateStanding, problem: str | None
) -> None:
    log = SimpleNamespace(record=lambda *_: None)
    registry = SimpleNamespace(gate_standing=lambda _: standing, log=log)
    monkeypatch.setattr(service_events, "ModelRegistry", lambda _: registry)
    config = SimpleNamespace(model_name="pets", model_version="2", predictor="f")
    service: Any = SimpleNamespace(uuid=uuid4(), config=config)
    started: list[Any] = []
    monkeypatch.setattr(BentoDeployer, "_find_service", lambda *_: service)
    monkeypatch.setattr(
        BentoDeployer.__mro__[2], "start_model_server", lambda *_: started.append(service)
    )
    deployer = BentoDeployer.__new__(BentoDeployer)
    if problem is None:
        deployer.start_model_server(service.uuid)
        assert started == [service]
    else:
        with pytest.raises(TransitionRefusedError, match=problem):
            deployer.start_model_server(service.uuid)
        assert not started
