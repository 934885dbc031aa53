"""Traffic of an endpoint: each service's part of the requests, and how clients reach them."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from cv_factory.config.deployment import EndpointConfig

#: The part that a service plays in a rollout; a shadow is given copies, whose answers go nowhere.
Arm = Literal["stable", "canary", "shadow"]


@dataclass(frozen=True)
class Share:
    """A service's part of the requests.

    Attributes:
        fraction: Of all requests; those that a shadow is given copies of.
        arm: Its part in a rollout.
    """

    fraction: float
    arm: Arm = "stable"


@dataclass(frozen=True)
class Sticky:
    """What identifies a client, whose requests one version answers while the weights stay.

    Attributes:
        by: ``api_key`` for the value of ``Authorization`` or ``X-API-Key``.
        name: Of the header or the cookie; empty for ``api_key``.
    """

    by: Literal["api_key", "header", "cookie"]
    name: str = ""


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of a certificate chain and its private key, loaded again when they change."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Traffic:
    """Distribution of an endpoint's requests.

    Attributes:
        shares: By the name of the service; others are given neither requests nor copies.
        sticky: How a client stays with a version; None where each request is distributed.
        tls: None for plain text.
    """

    shares: Mapping[str, Share] = field(default_factory=dict)
    sticky: Sticky | None = None
    tls: TlsFiles | None = None

    @property
    def weights(self) -> dict[str, float]:
        """Fraction of the requests of each service that answers any, by name."""
        answering = {name: s.fraction for name, s in self.shares.items() if s.arm != "shadow"}
        total = sum(answering.values()) or 1.0
        return {name: fraction / total for name, fraction in answering.items()}

    @property
    def shadows(self) -> dict[str, float]:
        """Fraction of the requests that each shadow is given copies of, by name."""
        return {name: s.fraction for name, s in self.shares.items() if s.arm == "shadow"}

    def describe(self, name: str) -> str:
        """Return which part of the requests a service is given, for people."""
        if name in self.shadows:
            return f"copies of {self.shadows[name]:.0%}"
        return f"{self.weights.get(name, 0.0):.0%}"

    def with_settings(self, settings: "EndpointConfig") -> "Traffic":
        """Return the traffic with the stickiness and TLS of settings, where these are given."""
        sticky, tls = self.sticky, self.tls
        if settings.sticky is not None:
            by, name = settings.sticky.by, settings.sticky.name
            sticky = None if by == "none" else Sticky(by, name)
        if settings.tls is not None:
            certificate, key = settings.tls.certificate, settings.tls.key
            tls = TlsFiles(_absolute(certificate), _absolute(key)) if certificate and key else None
        return replace(self, sticky=sticky, tls=tls)

    def with_weights(self, weights: Mapping[str, float]) -> "Traffic":
        """Return the traffic with the requests distributed anew; shadows keep their copies.

        A service that is given requests is a canary only if it was one and is not alone.
        """
        total = sum(weights.values()) or 1.0
        shares = {}
        for name, weight in weights.items():
            was_canary = name in self.shares and self.shares[name].arm == "canary"
            arm: Arm = "canary" if was_canary and len(weights) > 1 else "stable"
            shares[name] = Share(weight / total, arm)
        shadows = {n: s for n, s in self.shares.items() if s.arm == "shadow" and n not in weights}
        return replace(self, shares={**shares, **shadows})

    def all_to(self, name: str) -> "Traffic":
        """Return the traffic of one service that is given all requests, without shadows."""
        return replace(self, shares={name: Share(1.0)})

    def only(self, names: Collection[str]) -> "Traffic":
        """Return the traffic of these services; what others were given is distributed to them."""
        rest = replace(self, shares={n: s for n, s in self.shares.items() if n in names})
        return rest.with_weights(rest.weights)

    def beside_others(self, name: str, share: Share) -> "Traffic":
        """Return the traffic with a canary or shadow of this share, beside what answers without it.

        Raises:
            ValueError: Nothing else answers.
        """
        others = self.only(self.shares.keys() - {name})
        if not others.weights:
            raise ValueError(f"nothing answers beside {name}")
        rest = 1.0 - share.fraction if share.arm == "canary" else 1.0
        scaled = {
            other: s if s.arm == "shadow" else replace(s, fraction=s.fraction * rest)
            for other, s in others.shares.items()
        }
        # The first of them says at which port the proxy listens.
        return replace(self, shares={name: share, **scaled})

    def renamed(self, names: Mapping[str, str]) -> "Traffic":
        """Return the traffic with other names of the services, without those that have none."""
        shares = {names[name]: share for name, share in self.shares.items() if name in names}
        return replace(self, shares=shares)


def _absolute(file: str) -> Path:
    # Links are kept: a renewal of the certificate changes where they lead.
    return Path(file).expanduser().absolute()
