"""Writes the JSON schemas of the configurations to configs/schema/, in the form that suits editors.

``--check`` writes nothing and fails when a file differs from what would be written.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from cli.pipeline_config import file_schema
from cv_factory.config.loop import LoopConfig
from cv_factory.config.pipelines import PIPELINE_CONFIGS
from cv_factory.config.section import Section

DIRECTORY = Path(__file__).resolve().parent.parent / "configs" / "schema"
#: Configurations of commands.
COMMAND_CONFIGS: dict[str, type[Section]] = {"loop": LoopConfig}
NAMES = sorted((*PIPELINE_CONFIGS, *COMMAND_CONFIGS))
#: The newest dialect that every YAML editor's language server reads.
DIALECT = "http://json-schema.org/draft-07/schema#"


def main() -> int:
    """Write or check the schemas and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing, fail on a difference")
    check = parser.parse_args().check
    wanted = {f"{name}.schema.json": schema_text(name) for name in NAMES}
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    present = {p.name: p.read_text(encoding="utf-8") for p in DIRECTORY.glob("*.schema.json")}
    stale = sorted(n for n in wanted.keys() | present.keys() if wanted.get(n) != present.get(n))
    if check and stale:
        sys.stderr.write(
            f"configs/schema is not up to date: {', '.join(stale)}. Run: make schema\n"
        )
        return 1
    for name in stale:
        if name in wanted:
            (DIRECTORY / name).write_text(wanted[name], encoding="utf-8")
        else:
            (DIRECTORY / name).unlink()
    sys.stdout.write(
        f"configs/schema: {len(wanted)} up to date, {len(stale)} of them written now\n"
    )
    return 0


def schema_text(name: str) -> str:
    """Return the content of the schema file of a pipeline's or a command's configuration."""
    is_command = name in COMMAND_CONFIGS
    content = (COMMAND_CONFIGS[name] if is_command else file_schema(name)).model_json_schema()
    schema = {"$schema": DIALECT, **content, "title": name if is_command else f"{name} pipeline"}
    return json.dumps(for_editors(schema, top=True), indent=2, ensure_ascii=False) + "\n"


def for_editors(node: Any, *, top: bool = False) -> Any:
    """Rewrite pydantic's schema so that hovering, completion and error messages say more.

    Generated titles go, since they repeat the key; the default joins the description; each
    member of a union that a ``name`` tells apart requires that name, as the real check does.
    """
    if isinstance(node, list):
        return [for_editors(item) for item in node]
    if not isinstance(node, dict):
        return node
    out: dict[str, Any] = {
        key: _properties(value) if key in {"properties", "$defs"} else for_editors(value)
        for key, value in node.items()
        if key != "discriminator" and (top or key != "title")
    }
    if "default" in out:
        if out["default"] is None or isinstance(out["default"], dict):
            # An editor would insert null or the whole section on completion.
            del out["default"]
        else:
            default = f"default: {json.dumps(out['default'])}"
            out["description"] = "; ".join(filter(None, [out.get("description"), default]))
    const = out.get("properties", {}).get("name", {}).get("const")
    if const is not None:
        out["required"] = sorted({*out.get("required", []), "name"})
    return out


def _properties(node: dict[str, Any]) -> dict[str, Any]:
    """Rewrite the values alone: a key here is a setting's name, even if it is ``title``."""
    return {name: for_editors(value) for name, value in node.items()}


if __name__ == "__main__":
    sys.exit(main())
