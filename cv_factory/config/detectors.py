"""The section ``detectors``: the sections of all detectors, by the detector's name."""

from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import Field, create_model

from cv_factory.config.detector_section import DetectorSection
from cv_factory.config.plugins import load_plugin, plugin_names
from cv_factory.config.section import Section

_PACKAGE = "cv_factory.monitoring.detectors"


def _load_section(name: str) -> type[DetectorSection]:
    """Return the section that a detector's module defines.

    Raises:
        ImportError: The module defines none.
    """
    module = load_plugin(_PACKAGE, name, "detector")
    classes = [value for value in vars(module).values() if isinstance(value, type)]
    for value in classes:
        if issubclass(value, DetectorSection) and value.__module__ == module.__name__:
            return value
    raise ImportError(f"{module.__name__} needs a subclass of DetectorSection")


#: The section of each detector, by the detector's name.
DETECTOR_SECTIONS: dict[str, type[DetectorSection]] = {
    name: _load_section(name) for name in plugin_names(_PACKAGE)
}
_FIELDS: dict[str, Any] = {
    name: (section, Field(section(), description=section.__doc__))
    for name, section in DETECTOR_SECTIONS.items()
}

if TYPE_CHECKING:
    DetectorsConfig: TypeAlias = Section
else:
    DetectorsConfig = create_model(
        "DetectorsConfig", __base__=Section, __doc__="Settings of each detector.", **_FIELDS
    )
