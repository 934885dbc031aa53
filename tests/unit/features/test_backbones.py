"""Backbones by name: what is missing or damaged is said before anything runs."""

from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision

from cv_factory.errors import ConfigError
from cv_factory.features.backbones import check_backbone, load_backbone
from cv_factory.features.backbones import torchvision as torchvision_backbones

#: A small one.
NAME = "torchvision/shufflenet_v2_x0_5"


@pytest.fixture
def weights_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where torch would keep the weights; there is no network."""

    def fail(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torchvision_backbones, "urlopen", fail)
    weights = torchvision.models.get_model_weights("shufflenet_v2_x0_5").DEFAULT
    path = torchvision_backbones.weights_path(weights)
    assert path.is_relative_to(tmp_path)
    path.parent.mkdir(parents=True)
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("efficientnet_lite", r"no backbone 'efficientnet_lite'\. .*'efficientnet_lite0'"),
        ("efficientnet_lite0/b", r"efficientnet_lite0 has no variant 'b'"),
        ("torchvision/resnet17", r"features\.backbone: .* 'resnet17'\. Did you mean 'resnet1\d+'"),
    ],
)
def test_an_unknown_backbone_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_backbone(name)


def test_weights_out_of_reach_are_named_with_where_to_put_them(weights_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be reached .*no network") as error:
        check_backbone(NAME)
    assert f"Put the file into {weights_path.parent}" in str(error.value)


def test_damaged_weights_are_refused(weights_path: Path) -> None:
    weights_path.write_bytes(b"damaged")
    with pytest.raises(ConfigError, match=r"is damaged: its SHA-256 does not begin with"):
        check_backbone(NAME)


def test_a_network_of_torchvision_gives_what_its_head_was_given(
    weights_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchvision_backbones, "_verify", lambda _path: None)
    torch.manual_seed(0)
    network = torchvision.models.shufflenet_v2_x0_5().eval()
    torch.save(network.state_dict(), weights_path)
    backbone = load_backbone(NAME, 32)
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        features = backbone.network(images)
        np.testing.assert_array_equal(network.fc(features).numpy(), network(images).numpy())
    np.testing.assert_allclose(backbone.mean, [123.675, 116.28, 103.53])
    assert backbone.license.startswith("BSD-3-Clause")
    assert len(backbone.weights_sha256) == 64
