"""Detectors of drift, bad input and harm, one module each.

A module holds ``DEFAULTS``, its settings, and ``detect(reference, window, settings)``, which
returns a ``Finding`` or several. A window that is too small gives ``not_enough_evidence``.
"""

#: The package whose modules are plug-ins; ``cv_factory.code_fingerprint`` reads it.
PLUGINS = "cv_factory.monitoring.detectors"
