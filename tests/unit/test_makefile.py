"""The Makefile: finding Python, making .venv, installing only what changed."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from cv_factory.errors import missing_extra
from tests.support.paths import ROOT
from tests.support.project import Project

#: Writes its arguments to a log and makes what ``uv venv`` makes, as far as the Makefile looks.
_UV = """#!/bin/sh
if [ "$1" = --version ]; then exit 0; fi
echo "$@" >>"$UV_LOG"
if [ "$1" = venv ]; then
    for folder; do :; done
    mkdir -p "$folder/bin" && ln -s "$REAL_PYTHON" "$folder/bin/python"
    echo "VIRTUAL_ENV='$folder'" >"$folder/bin/activate" && touch "$folder/pyvenv.cfg"
elif [ -e "$UV_FAILS" ]; then
    echo "no network" >&2
    exit 1
fi
"""


def write_program(path: Path, text: str) -> Path:
    path.unlink(missing_ok=True)  # it may be a link to the real Python
    path.write_text(text)
    path.chmod(0o755)
    return path


@dataclass
class Checkout:
    """A folder with the Makefile and what it reads, in which uv is a stub."""

    folder: Path
    programs: Path

    def make(
        self, *arguments: str, check: bool = True, **environment: str
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["make", *arguments],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=check,
            env={
                "PATH": f"{self.programs}:/usr/bin:/bin",
                "UV_LOG": str(self.programs / "log"),
                "UV_FAILS": str(self.programs / "fails"),
                "REAL_PYTHON": sys.executable,
                **environment,
            },
        )

    @property
    def uv_calls(self) -> list[str]:
        log = self.programs / "log"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def installations(self) -> list[list[str]]:
        """The extras of each call of ``uv pip install``, sorted."""
        calls = [call for call in self.uv_calls if call.startswith("pip install")]
        return [sorted(re.findall(r"--extra (\S+)", call)) for call in calls]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    folder, programs = tmp_path / "a checkout", tmp_path / "programs"
    (folder / "tools").mkdir(parents=True)
    programs.mkdir()
    for name in ("Makefile", "tools/find_python.sh"):
        shutil.copy(ROOT / name, folder / name)
    for name in ("pyproject.toml", "requirements.lock"):
        (folder / name).write_text("content")
        os.utime(folder / name, (0, 0))
    (programs / "python3.12").symlink_to(sys.executable)
    write_program(programs / "uv", _UV)
    return Checkout(folder, programs)


def test_a_second_installation_does_nothing(checkout: Checkout) -> None:
    checkout.make("install")
    calls = checkout.uv_calls
    assert [call.split()[0] for call in calls] == ["venv", "pip"]
    assert checkout.make("install").stdout == ""
    assert checkout.uv_calls == calls


def test_the_lock_constrains_and_pyproject_is_installed(checkout: Checkout) -> None:
    checkout.make("install")
    assert "-r pyproject.toml -c requirements.lock" in checkout.uv_calls[-1]


def test_extras_add_up(checkout: Checkout) -> None:
    checkout.make("install-dev")
    checkout.make("install", "EXTRAS=sources aws")
    installed = ["dev", "sources", "backbones", "heif", "slack", "aws"]
    assert checkout.installations == [[], *([extra] for extra in installed)]


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements.lock"])
def test_a_changed_file_installs_again_with_the_extras_so_far(
    name: str, checkout: Checkout
) -> None:
    checkout.make("install", "EXTRAS=sources")
    (checkout.folder / name).write_text("changed")
    checkout.make("install")
    assert checkout.installations == [[], ["sources"], ["sources"]]


def test_the_torch_backend_is_kept_until_another_is_named_and_makes_venv_anew(
    checkout: Checkout,
) -> None:
    checkout.make("install", "TORCH_BACKEND=cpu", "EXTRAS=sources")
    mark = checkout.folder / ".venv" / "mark"
    mark.touch()
    checkout.make("install", "EXTRAS=aws")
    assert mark.exists()
    checkout.make("install", "TORCH_BACKEND=cu130")
    assert not mark.exists()
    backends = [re.findall(r"--torch-backend (\S+)", call) for call in checkout.uv_calls]
    assert backends == [[], ["cpu"], ["cpu"], ["cpu"], [], ["cu130"]]
    assert checkout.installations[-1] == ["aws", "sources"]


def test_another_python_makes_venv_anew_and_the_same_does_not(checkout: Checkout) -> None:
    checkout.make("install")
    checkout.make("install", f"PYTHON={sys.executable}")
    assert len(checkout.uv_calls) == 2
    other = write_program(
        checkout.programs / "other",
        '#!/bin/sh\ncase "$2" in *"%d.%d.%d"*) echo 3.13.1; echo True; echo "$0";;\n'
        "*) echo 3 13;; esac\n",
    )
    checkout.make("install", f"PYTHON={other}")
    assert f"--python {other}" in checkout.uv_calls[2]


def test_a_moved_checkout_makes_venv_anew(checkout: Checkout) -> None:
    checkout.make("install", "EXTRAS=sources")
    moved = checkout.folder.with_name("moved")
    checkout.folder.rename(moved)
    Checkout(moved, checkout.programs).make("install")
    assert f"{moved}/.venv" in checkout.uv_calls[3]
    assert checkout.installations[-1] == ["sources"]


def test_a_failed_installation_is_repeated(checkout: Checkout) -> None:
    (checkout.programs / "fails").touch()
    failed = checkout.make("install", check=False)
    assert failed.returncode
    assert "no network" in failed.stderr
    (checkout.programs / "fails").unlink()
    checkout.make("install")
    assert checkout.installations == [[], []]


def test_a_folder_that_is_no_environment_is_left_alone(checkout: Checkout) -> None:
    notes = checkout.folder / ".venv" / "notes.txt"
    notes.parent.mkdir()
    notes.touch()
    result = checkout.make("install", check=False)
    assert result.returncode
    assert "no virtual environment" in result.stderr
    assert notes.exists()


def test_the_download_is_announced(checkout: Checkout) -> None:
    write_program(checkout.programs / "uname", "#!/bin/sh\necho Linux\n")
    text = checkout.make("install").stdout
    assert "about 3 GB to download" in text
    assert "make setup TORCH_BACKEND=cpu" in text
    text = checkout.make("install", "TORCH_BACKEND=cpu").stdout
    assert "about 0.5 GB to download" in text
    assert "TORCH_BACKEND" not in text


def test_without_uv_in_path_pip_puts_it_into_venv(checkout: Checkout) -> None:
    uv = (checkout.programs / "uv").read_text()
    write_program(checkout.programs / "uv", "#!/bin/sh\nexit 127\n")  # a shim that does not run
    python = write_program(
        checkout.programs / "python3.12",
        f"""#!/bin/sh
case "$1 $2" in
"-c "*) "{sys.executable}" "$@" | sed "s|^/.*|$0|";;
"-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && touch "$3/pyvenv.cfg"
    echo "VIRTUAL_ENV='$3'" >"$3/bin/activate";;
"-m pip") cp "{checkout.programs}/real_uv" .venv/bin/uv;;
esac
""",
    )
    write_program(checkout.programs / "real_uv", uv)
    output = checkout.make("install", f"PYTHON={python}").stdout
    assert "uv is not in PATH" in output
    assert checkout.installations == [[]]


def test_without_the_venv_module_the_message_names_the_package(checkout: Checkout) -> None:
    write_program(checkout.programs / "uv", "#!/bin/sh\nexit 127\n")
    python = write_program(
        checkout.programs / "python3.12",
        f"""#!/bin/sh
case "$1" in -c) "{sys.executable}" "$@" | sed "s|^/.*|$0|";; *) exit 1;; esac
""",
    )
    result = checkout.make("install", f"PYTHON={python}", check=False)
    assert result.returncode
    assert "python3-venv" in result.stderr
    assert not (checkout.folder / ".venv").exists()


@pytest.mark.parametrize("target", ["help", ""])
def test_make_help_lists_the_targets(target: str) -> None:
    command = ["make", "-C", str(ROOT), *filter(None, [target])]
    environment = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MAKELEVEL"}}
    text = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment
    ).stdout
    for name in ("setup", "training", "test", "test-engines", "check", "bench", "lock", "clean"):
        assert re.search(rf"^  make {name}  +\w", text, re.MULTILINE)


def install_commands() -> list[str]:
    """Every line in code and docs that tells a person to install something of this project."""
    files = subprocess.run(
        ["git", "ls-files", "*.py", "*.md", "Makefile"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    files = [file for file in files if not file.startswith("tests/") and (ROOT / file).exists()]
    lines = [line for file in files for line in (ROOT / file).read_text().splitlines()]
    return [line for line in lines if re.search(r"\bpip install\b|EXTRAS=|--extra\b", line)]


def test_every_install_command_for_an_extra_is_the_one_of_missing_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    lines = install_commands()
    assert not [line for line in lines if "[" + "sources]" in line or "cv-factory[" in line]
    assert not [line for line in lines if "pip install -e" in line]
    advised = [extra for line in lines for extra in re.findall(r"make setup EXTRAS=(\w+)", line)]
    assert {"sources", "backbones", "heif", "aws"} <= set(advised) <= set(extras)
    code = "\n".join(p.read_text() for p in (ROOT / "cv_factory").rglob("*.py"))
    named = re.findall(r"missing_extra\([\"'](\w+)", code)
    assert set(named) <= set(extras)
    assert missing_extra("sources").endswith(": make setup EXTRAS=sources")


@pytest.mark.engines
def test_the_command_of_missing_extra_installs_the_extra(tmp_path: Path) -> None:
    project = Project(tmp_path)
    # Network and uv's cache are the user's; ZenML's store is not.
    environment = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MAKELEVEL"}}
    environment |= {
        "ZENML_CONFIG_PATH": str(project.zenml_config),
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
    }
    command = missing_extra("sources").rpartition(": ")[2].split()
    subprocess.run(command, cwd=project.root, env=environment, check=True, timeout=500)
    imports = [".venv/bin/python", "-c", "import dvc, psycopg, s3fs, torch, zenml"]
    subprocess.run(imports, cwd=project.root, check=True)


def find_python(path: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["/bin/sh", str(ROOT / "tools" / "find_python.sh")],
        env={"PATH": str(path), **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A PATH with nothing in it but what the script itself calls."""
    folder = tmp_path / "a bin"
    folder.mkdir()
    (folder / "sed").symlink_to(str(shutil.which("sed")))
    return folder


def fake(folder: Path, name: str, version: tuple[int, int, int] | None) -> Path:
    """Make a program that answers like a Python of that version, or fails like a broken shim."""
    if version is None:
        return write_program(folder / name, "#!/bin/sh\nexit 127\n")
    text = ".".join(map(str, version))
    fits = (3, 11) <= version[:2] < (3, 14)
    return write_program(
        folder / name, f"#!/bin/sh\necho {text}\necho {fits}\necho /real/{name}-{text}\n"
    )


def test_the_python_outside_of_any_virtual_environment_is_printed(programs: Path) -> None:
    (programs / "python3.11").symlink_to(sys.executable)
    result = find_python(programs)
    assert result.returncode == 0
    assert Path(result.stdout.strip()).resolve() == Path(sys.executable).resolve()


def test_a_broken_shim_and_an_old_version_are_passed_over(programs: Path) -> None:
    fake(programs, "python3.12", None)
    fake(programs, "python3.11", (3, 10, 1))
    fake(programs, "python3", (3, 13, 2))
    assert find_python(programs).stdout == "/real/python3-3.13.2\n"


def test_a_version_that_is_too_new_is_refused(programs: Path) -> None:
    fake(programs, "python3", (3, 14, 0))
    result = find_python(programs)
    assert result.returncode == 1
    assert f"{programs}/python3: Python 3.14.0" in result.stderr


def test_the_error_names_the_versions_present_and_what_to_do(programs: Path) -> None:
    fake(programs, "python3.12", None)
    fake(programs, "python3", (3, 9, 2))
    result = find_python(programs)
    assert result.returncode == 1
    assert result.stdout == ""
    for part in ("python3.12: does not run", "python3: Python 3.9.2", "make setup PYTHON="):
        assert part in result.stderr


def test_PYTHON_is_the_only_candidate(programs: Path) -> None:
    fake(programs, "python3.11", (3, 11, 4))
    own = fake(programs, "my python", (3, 12, 1))
    assert find_python(programs, PYTHON=str(own)).stdout == "/real/my python-3.12.1\n"
    result = find_python(programs, PYTHON="nonesuch")
    assert result.returncode == 1
    assert "only PYTHON=nonesuch was tried" in result.stderr
