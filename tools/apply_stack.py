"""Applies a stack and makes it active, unless that is done and nothing it stands on has changed.

``python -m stacks apply`` is idempotent and is what does the work; this module only knows when
calling it, which costs seconds, would change nothing.
"""

import argparse
import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import yaml

ROOT = Path(__file__).resolve().parent.parent
STAMP = ROOT / ".venv" / "cv-factory-stack"


def main() -> int:
    """Apply the stack that the command line names and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("name")
    name = parser.parse_args().name
    if STAMP.is_file() and STAMP.read_text(encoding="utf-8") == fingerprint(name):
        sys.stdout.write(f"Stack {name}: applied and active.\n")
        return 0
    STAMP.unlink(missing_ok=True)
    apply = subprocess.run([sys.executable, "-m", "stacks", "apply", name, "--set"], cwd=ROOT)
    if apply.returncode == 0 and (after := fingerprint(name)):
        STAMP.write_text(after, encoding="utf-8")
    return apply.returncode


def fingerprint(name: str) -> str | None:
    """Return the SHA-256 of all that decides whether the stack is applied and active.

    That is the stack files and our flavors, the versions installed, and the client: which store it
    is connected to and which stack is active, both for the user and for this folder. The stamp is
    therefore void when the user deletes the ZenML configuration, connects to a server or sets
    another stack.

    Returns:
        The fingerprint, or None where ZenML has no configuration, so that nothing can be applied.
    """
    client = zenml_config_directory() / "config.yaml"
    if not client.is_file():
        return None
    stacks = sorted(p for p in (ROOT / "stacks").rglob("*") if p.suffix in {".py", ".yaml"})
    digest = hashlib.sha256(f"{name}\0{client}\0{_client_state(client)}\0".encode())
    for path in [*stacks, ROOT / "requirements.lock"]:
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode() + content)
    # Variables by which ZenML picks store and stack, and those that a stack file names.
    named = {v for p in stacks for v in re.findall(r"\$\{(\w+)", p.read_text(encoding="utf-8"))}
    for variable in sorted(os.environ):
        if variable in named or variable.startswith(("ZENML_STORE_", "ZENML_ACTIVE_")):
            digest.update(f"{variable}={os.environ[variable]}\0".encode())
    local_store = client.parent / "local_stores" / "default_zen_store" / "zenml.db"
    digest.update(str(local_store.is_file()).encode())
    return digest.hexdigest()


def _client_state(client: Path) -> str:
    """Return the store, the user and the active stack that ZenML would use in this folder."""
    user = _read_mapping(client)
    folder = _read_mapping(ROOT / ".zen" / "config.yaml")
    active = folder.get("active_stack_id") or user.get("active_stack_id")
    return repr((user.get("user_id"), user.get("store"), bool(folder), active))


def _read_mapping(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}


def zenml_config_directory() -> Path:
    """Return where ZenML keeps the client's configuration, as ZenML itself works it out."""
    chosen = os.environ.get("ZENML_CONFIG_PATH")
    return Path(chosen).resolve() if chosen else Path(click.get_app_dir("zenml"))


if __name__ == "__main__":
    sys.exit(main())
