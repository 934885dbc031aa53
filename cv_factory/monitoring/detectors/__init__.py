"""Detectors of drift, bad input and harm, one module each.

A module defines its section, a subclass of ``DetectorSection``, and ``detect(reference, window,
config)``, which returns findings. It imports nothing heavy, since every reader of a configuration
imports it. A window that is too small gives ``not_enough_evidence``.
"""

from typing import TYPE_CHECKING

from cv_factory.config.plugins import load_plugin, plugin_names
from cv_factory.monitoring.finding import Finding

if TYPE_CHECKING:
    from cv_factory.config.detectors import DetectorsConfig
    from cv_factory.inference.reference import Reference
    from cv_factory.monitoring.window import Window

#: The package whose modules are plug-ins; ``cv_factory.code_fingerprint`` reads it.
PLUGINS = "cv_factory.monitoring.detectors"


def detector_names() -> tuple[str, ...]:
    """Return the names of all detectors, sorted."""
    return plugin_names(PLUGINS)


def run_detectors(
    reference: "Reference | None", window: "Window", config: "DetectorsConfig"
) -> list[Finding]:
    """Return the findings of all detectors that the configuration enables.

    Evidence adds up from the first prediction of the window. Give the same beginning at each look,
    such as the deployment of the version: then false alarms stay as rare as configured, however
    often one looks. A beginning of its own for each look is a test of its own for each.

    Args:
        reference: Of the version whose predictions these are; None if it has none.
        window: Predictions of one version in order of time, with their labels.
        config: Settings of each detector.
    """
    names = [name for name in detector_names() if getattr(config, name).enabled]
    obstacle = _find_obstacle(reference, window)
    if obstacle or reference is None:
        return [_refuse(name, obstacle, len(window)) for name in names]
    return [
        finding
        for name in names
        for finding in load_plugin(PLUGINS, name, "detector").detect(
            reference, window, getattr(config, name)
        )
    ]


def _find_obstacle(reference: "Reference | None", window: "Window") -> str:
    """Return why nothing can be compared; empty if it can."""
    if reference is None:
        return (
            "the version has no reference, since it was trained before there were any: "
            "train and deploy a version with this release"
        )
    if reference.class_names != window.class_names:
        return "the reference has other classes than the predictions: give that of their version"
    shapes = reference.test.features.shape[1:], window.features.shape[1:]
    if shapes[0] != shapes[1]:
        return f"the reference has features {shapes[0]}, the predictions {shapes[1]}"
    return ""


def _refuse(name: str, obstacle: str, n: int) -> Finding:
    kind = load_plugin(PLUGINS, name, "detector").KIND
    return Finding(name, kind, "not_enough_evidence", f"Nothing to compare with: {obstacle}.", n)
