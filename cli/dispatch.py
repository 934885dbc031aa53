"""Reads the configuration of a run and hands it to the runner of its pipeline."""

import json
import shlex
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cli.config_choice import choose_config_file
from cli.options import ROOT, RunOptions
from cli.pipeline_config import ZenMLConfig, file_schema, split_config
from cv_factory.config.loader import load_config
from cv_factory.config.section import Section
from cv_factory.config.suggestion import suggest
from cv_factory.errors import ConfigError


def run_pipeline(options: RunOptions) -> int:
    """Run a pipeline, or print its plan, and return the exit code.

    The runner is ``cli.pipelines.NAME.run``; a pipeline without one is run with its configuration
    as the only argument.

    Raises:
        CVFactoryError: The configuration is wrong, or a check, a step or a gate refused.
    """
    config, zenml = read_config(options)
    if find_spec(f"cli.pipelines.{options.pipeline}") is None:
        return _run_without_runner(config, zenml, options)
    runner: Any = import_module(f"cli.pipelines.{options.pipeline}")
    exit_code: int = runner.run(config, zenml, options)
    return exit_code


def read_config(options: RunOptions) -> tuple[Section, ZenMLConfig]:
    """Read the configuration file of a run, with presets and overrides applied over it.

    Without --config it is that of ``choose_config_file``, or else the schema's defaults are taken.

    Returns:
        The sections of the library, and ZenML's section.

    Raises:
        ConfigError: A file or a setting is missing or wrong.
    """
    presets = [ROOT / "configs" / "presets" / f"{name}.yaml" for name in options.presets]
    for name, path in zip(options.presets, presets, strict=True):
        if not path.is_file():
            names = sorted(p.stem for p in path.parent.glob("*.yaml"))
            raise ConfigError(f"There is no preset {name!r}. {suggest(name, names, 'presets')}")
    schema = file_schema(options.pipeline)
    defaults = {}
    if options.data_dir and "data" in schema.model_fields:
        if not Path(options.data_dir).expanduser().is_dir():
            raise ConfigError(
                f"The folder {options.data_dir} (--data-dir, or $CV_FACTORY_DATA) does not exist. "
                f"Create it, or name another one: mkdir -p {shlex.quote(options.data_dir)}"
            )
        defaults["--data-dir"] = f"data.data_dir={options.data_dir}"
    overrides = [*options.overrides, *(["zenml.enable_cache=false"] if options.no_cache else [])]
    if options.model_name is not None:
        if schema.MODEL_NAME_KEY is None:
            raise ConfigError(f"The pipeline {options.pipeline} has no model: remove --model.")
        overrides.append(f"{schema.MODEL_NAME_KEY}={json.dumps(options.model_name)}")
    file = options.config or choose_config_file(options.pipeline, presets, overrides)
    content = load_config(schema, file, presets=presets, overrides=overrides, defaults=defaults)
    return split_config(options.pipeline, content)


def _run_without_runner(config: Section, zenml: ZenMLConfig, options: RunOptions) -> int:
    from cli.session import activate_stack

    stack = activate_stack(options.stack)
    from cli.execution import run_to_end
    from cli.run_plan import print_plan

    pipeline = getattr(import_module(f"pipelines.{options.pipeline}"), options.pipeline)
    if options.dry_run:
        print_plan(pipeline, zenml, stack, config)
    else:
        run_to_end(pipeline, zenml, config, debug=options.debug)
    return 0
