"""Settings that hold secrets are refused, with the way to do it, and never printed."""

import pytest

from cv_factory.config.data import DataConfig
from cv_factory.config.loader import load_config
from cv_factory.config.secrets import is_secret_name, mask_secrets
from cv_factory.config.training import ValidationPipelineConfig
from cv_factory.errors import ConfigError

SECRET = "hunter2"


@pytest.mark.parametrize(
    "setting",
    [
        f"data.path=https://h.org/list?api_key={SECRET}",
        f"data.path=https://me:{SECRET}@h.org/list",
        f"data.path=https://{SECRET}@h.org/list",
        f"data.path=https://h.org/list?page=1&X-Amz-Signature={SECRET}",
        f"data.storage_options.secret={SECRET}",
        f"data.storage_options.account_key={SECRET}",
        f"data.storage_options.connection_string={SECRET}",
        f"data.storage_options.endpoint_url=https://me:{SECRET}@h.org",
        f"data.fetch.headers.PRIVATE-TOKEN={SECRET}",
        f"data.fetch.headers.Api-Key={SECRET}",
        f"data.manifest.root=https://h.org/images?token={SECRET}",
        f"data.dvc.repo=https://me:{SECRET}@h.org/repo.git",
        f"data.sql={{url: 'postgresql://me:{SECRET}/x@h/db', query: SELECT 1}}",
        f"data.sql={{url: 'postgresql://h/db?password={SECRET}', query: SELECT 1}}",
    ],
)
def test_a_secret_is_refused_and_not_printed(setting: str) -> None:
    with pytest.raises(ConfigError, match="would be stored with every run") as caught:
        load_config(ValidationPipelineConfig, overrides=["data.source=http", setting])
    assert SECRET not in str(caught.value)
    variable = setting.replace(SECRET, "{env:MY_KEY}")
    key, _, value = variable.partition("=")
    with pytest.raises(ConfigError) as caught:
        load_config(ValidationPipelineConfig, overrides=["data.source=x", f"{key}='{value}'"])
    assert "would be stored" not in str(caught.value)


@pytest.mark.parametrize(
    "path", ["https://h.org:80/@a/list", "https://me:{env:K}@h.org", "s3://bucket/a:b@c", "a:b@c"]
)
def test_a_path_without_a_secret_is_accepted(path: str) -> None:
    assert DataConfig(source="http", path=path).path == path


def test_options_that_are_no_secrets_are_accepted() -> None:
    options = {"anon": True, "endpoint_url": "http://127.0.0.1:9000", "token": "anon",
               "key": "{env:KEY}", "profile": "images", "skip_instance_cache": True}  # fmt: skip
    config = DataConfig.model_validate(
        {"source": "folder", "path": "s3://bucket/pets?versionId=1", "storage_options": options}
    )
    assert config.storage_options == options
    assert not any(map(is_secret_name, ("keyword", "author", "monkey", "page", "versionId")))
    assert mask_secrets("a?keyword=cat&sig=x&v=1") == "a?keyword=cat&sig=***&v=1"
