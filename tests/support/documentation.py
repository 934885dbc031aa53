"""The commands of README and pages, as a reader finds them in their blocks."""

import re

from tests.support.paths import ROOT

_PROGRAMS = ("aws", "curl", "docker", "export", "make", "mlflow", "python", "zenml")


def shell_commands(page: str) -> list[str]:
    """Return the commands of a page's shell blocks, in order, a line each, without comments.

    Args:
        page: Path in the project, such as ``docs/aws.md``.
    """
    commands, fence, text = [], "", ROOT.joinpath(page).read_text(encoding="utf-8")
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.startswith("```"):
            fence = "" if fence else line
        elif fence in ("```", "```sh") and re.match(rf"({'|'.join(_PROGRAMS)}|[A-Z_]+=\S+) ", line):
            commands.append(" ".join(line.split(" #")[0].split()))
    return commands
