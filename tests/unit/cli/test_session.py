"""Which pipelines go on while another process moves versions."""

from typing import Any

import pytest

from cli.dispatch import read_config
from cli.options import RunOptions
from cli.pipelines import batch_inference, monitoring
from registry.stages import TransitionInProgressError


class _MovingRegistry:
    """A registry whose versions another process is moving."""

    model_name = "pets"

    def __init__(self, _: str) -> None:
        pass

    def recover(self) -> None:
        raise TransitionInProgressError("ada is moving versions right now")

    def warn_of_outside_changes(self) -> None:
        pass

    def get_version(self, number: int) -> Any:
        return type("Version", (), {"number": number, "stage": "archived"})

    def require_fit(self, number: int) -> None:
        pass


@pytest.mark.parametrize("pipeline", [batch_inference, monitoring])
def test_a_run_of_a_numbered_version_goes_on_beside_a_promotion(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], pipeline: Any
) -> None:
    """Without a number the version in production is used: between two moves there is none."""
    monkeypatch.setattr(pipeline, "activate_stack", lambda _: None)
    monkeypatch.setattr(batch_inference, "check_source", lambda *_, **__: None)
    monkeypatch.setattr("registry.model_registry.ModelRegistry", _MovingRegistry)
    monkeypatch.setattr("registry.versions.resolve_model_name", lambda _: "pets")
    monkeypatch.setattr("registry.versions.linked_artifact", lambda *_: None)
    options = RunOptions(pipeline.__name__.rpartition(".")[2], dry_run=True, model_name="pets")
    config: Any
    config, zenml = read_config(options)
    with pytest.raises(TransitionInProgressError):
        pipeline.run(config, zenml, options)
    model = config.model.model_copy(update={"version": 4})
    assert pipeline.run(config.model_copy(update={"model": model}), zenml, options) == 0
    assert "pets version 4" in capsys.readouterr().out
