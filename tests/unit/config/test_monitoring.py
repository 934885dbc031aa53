"""The configuration of the monitoring pipeline."""

from datetime import UTC, datetime

import pytest

from cv_factory.config.loader import load_config
from cv_factory.config.monitoring import MonitoringPipelineConfig
from cv_factory.errors import ConfigError


def test_times_are_read_with_and_without_a_time_zone() -> None:
    overrides = ["window.start=2026-11-28", "window.end=2026-11-29T01:00:00+01:00"]
    config = load_config(MonitoringPipelineConfig, overrides=overrides)
    assert config.window.start == datetime(2026, 11, 28, tzinfo=UTC)
    assert config.window.end == datetime(2026, 11, 29, tzinfo=UTC)
    # As ZenML stores and reads it.
    stored = config.model_dump(mode="json")
    assert MonitoringPipelineConfig.model_validate(stored) == config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["window.hours=1", "window.end=2026-11-28"], "either hours, or start and end"),
        (["window.start=2026-11-28", "window.end=2026-11-27"], "must be later than start"),
        (["window.batch=a", "window.captured=b"], "either batch or captured"),
        (["window.batch=a", "window.hours=1"], "looked at whole"),
    ],
)
def test_contradictions_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(MonitoringPipelineConfig, overrides=overrides)
