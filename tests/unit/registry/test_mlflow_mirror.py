"""What the mirror believes of MLflow, where anybody can change tags and aliases."""

from types import SimpleNamespace
from typing import Any

import pytest

from registry import versions
from registry.mlflow.mirror import HEAD_TAG, MlflowMirror

_VERSIONS: Any = [
    SimpleNamespace(number=n, run_metadata={versions.PREDICTOR: f"p{n}"}) for n in (1, 2)
]


class _Mlflow:
    """A registered model whose version N has the model of predictor pN."""

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}
        self.aliases = {"production": "1"}
        self.versions = [
            SimpleNamespace(
                version=n,
                source=f"models:/m-{n}",
                tags={"zenml_version": str(n), versions.PREDICTOR: f"p{n}"},
            )
            for n in (1, 2)
        ]

    def search_registered_models(self, _filter: str) -> list[str]:
        return ["pets"]

    def get_registered_model(self, _name: str) -> Any:
        return self

    def search_model_versions(self, _filter: str) -> list[Any]:
        return self.versions

    def get_logged_model(self, model_id: str) -> Any:
        return SimpleNamespace(params={versions.PREDICTOR: f"p{model_id[-1]}"})


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> MlflowMirror:
    monkeypatch.setattr(versions, "list_versions", lambda _: _VERSIONS)
    mirror = MlflowMirror("pets")
    mirror.__dict__["_client"] = _Mlflow()
    return mirror


@pytest.mark.parametrize("tag", ["", "garbage", "x:y"])
def test_a_tag_that_holds_no_end_of_the_log_is_as_none(mirror: MlflowMirror, tag: str) -> None:
    client: Any = mirror._client
    client.tags[HEAD_TAG] = tag
    assert mirror.log_head() is None
    client.tags[HEAD_TAG] = "7:abc"
    assert mirror.log_head() == (7, "abc")


def test_a_version_is_not_the_one_that_its_tags_claim(mirror: MlflowMirror) -> None:
    """The alias names version 2, whose tags are made to be those of version 1."""
    assert mirror.alias_versions() == {"production": 1}
    client: Any = mirror._client
    client.versions[1].tags = client.versions[0].tags
    client.aliases = {"production": "2"}
    assert mirror.alias_versions() == {"production": None}
    client.versions.reverse()
    assert mirror._find_or_create(_VERSIONS[0]) == "1"
