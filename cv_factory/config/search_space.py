"""Check of a search's space against the settings that it varies."""

import json
from typing import Any

from pydantic import ValidationError

from cv_factory.config.model import MODEL_SECTIONS, ModelConfig
from cv_factory.config.model_section import NetworkSection
from cv_factory.config.problems import describe, expand
from cv_factory.config.search import SearchConfig, build_trial_config
from cv_factory.config.section import Problem, Section
from cv_factory.config.suggestion import suggest


def check_space(search: SearchConfig, model: ModelConfig, train: Section) -> list[Problem]:
    """Return keys that do not exist, and ends of ranges that their setting does not allow."""
    problems: list[Problem] = []
    for family, space in search.families.items():
        path = ("search", "families", family)
        settings = _settings(family, train)
        unknown = [key for key in space if key not in settings]
        problems += [
            Problem(
                (*path, key),
                f"there is no such setting. {suggest(key, settings, 'keys')}",
            )
            for key in unknown
        ]
        if unknown:
            continue
        first = {key: spec.ends()[0] for key, spec in space.items()}
        trials = [(key, {**first, key: end}) for key in space for end in space[key].ends()]
        for key, values in trials or [("", {})]:
            problems += _check_values(path, key, values, model, train)
    return list(dict.fromkeys(problems))


def _settings(family: str, train: Section) -> list[str]:
    """Return the dotted keys that a search may vary; classical models have none of training."""
    section = MODEL_SECTIONS[family]
    keys = [f"model.{key}" for key in section.model_fields if key != "name"]
    if issubclass(section, NetworkSection):
        keys += [f"train.{key}" for key in type(train).model_fields if key != "seed"]
    return keys


def _check_values(
    path: tuple[str, ...], key: str, values: dict[str, Any], model: ModelConfig, train: Section
) -> list[Problem]:
    try:
        build_trial_config(path[-1], values, model, train)
    except ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(str(part) for part in detail["loc"] if part != path[-1])
        message = "; ".join(map(str, expand(detail))) or describe(detail)
        if key and "(got " not in message:
            message += f" (got {json.dumps(values[key], default=str)})"
        return [Problem((*path, key or where), message)]
    return []
