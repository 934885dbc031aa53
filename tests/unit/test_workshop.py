"""What make calls: finding Python, installing only what changed, applying a stack only when due."""

import importlib.metadata
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT
from tools import apply_stack, install


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
    program = folder / name
    if version is None:
        program.write_text("#!/bin/sh\nexit 127\n")
    else:
        text = ".".join(map(str, version))
        fits = (3, 11) <= version[:2] < (3, 14)
        program.write_text(f"#!/bin/sh\necho {text}\necho {fits}\necho /real/{name}-{text}\n")
    program.chmod(0o755)
    return program


def test_the_real_python_is_found_outside_of_any_virtual_environment(programs: Path) -> None:
    (programs / "python3.11").symlink_to(sys.executable)
    result = find_python(programs)
    assert result.returncode == 0
    assert Path(result.stdout.strip()).resolve() == Path(sys.executable).resolve()


def test_a_shim_that_does_not_run_and_an_old_version_are_passed_over(programs: Path) -> None:
    fake(programs, "python3.12", None)
    fake(programs, "python3.11", (3, 10, 1))
    fake(programs, "python3", (3, 13, 2))
    assert find_python(programs).stdout == "/real/python3-3.13.2\n"


def test_a_version_that_is_too_new_is_refused(programs: Path) -> None:
    fake(programs, "python3", (3, 14, 0))
    result = find_python(programs)
    assert result.returncode == 1
    assert f"{programs}/python3: Python 3.14.0" in result.stderr


def test_the_error_names_what_was_found_and_what_to_do(programs: Path) -> None:
    fake(programs, "python3.12", None)
    fake(programs, "python3", (3, 9, 2))
    result = find_python(programs)
    assert result.returncode == 1
    assert result.stdout == ""
    for words in ("python3.12: does not run", "python3: Python 3.9.2", "make setup PYTHON="):
        assert words in result.stderr


def test_PYTHON_is_the_only_candidate(programs: Path) -> None:
    fake(programs, "python3.11", (3, 11, 4))
    own = fake(programs, "my python", (3, 12, 1))
    assert find_python(programs, PYTHON=str(own)).stdout == "/real/my python-3.12.1\n"
    result = find_python(programs, PYTHON="nonesuch")
    assert result.returncode == 1
    assert "only PYTHON=nonesuch was tried" in result.stderr


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what install.py reads, in which no process is really started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHON", raising=False)
    for name in ("pyproject.toml", "requirements.lock"):
        (tmp_path / name).write_text("content")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "pyvenv.cfg").write_text("")
    return tmp_path


@pytest.fixture
def installed(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> list[install.Installation]:
    """What was installed, in order."""
    done: list[install.Installation] = []

    def make_venv() -> list[str]:
        (checkout / ".venv" / "bin").mkdir(parents=True, exist_ok=True)
        return ["uv"]

    monkeypatch.setattr(install, "_runs", lambda program: Path(program).parent.is_dir())
    monkeypatch.setattr(install, "_make_venv", make_venv)
    monkeypatch.setattr(install, "_install_with", lambda uv, wanted: done.append(wanted))
    return done


def test_a_second_installation_does_nothing(installed: list[install.Installation]) -> None:
    install.install((), "")
    install.install((), "")
    assert len(installed) == 1


def test_extras_add_up_and_are_kept(installed: list[install.Installation]) -> None:
    install.install(("dev",), "")
    install.install((), "")
    install.install(("aws",), "")
    assert [i.extras for i in installed] == [("dev",), ("aws", "dev")]


@pytest.mark.parametrize("name", ["pyproject.toml", "requirements.lock"])
def test_a_changed_file_installs_again(
    name: str, checkout: Path, installed: list[install.Installation]
) -> None:
    install.install((), "")
    (checkout / name).write_text("changed")
    install.install((), "")
    assert len(installed) == 2


def test_the_torch_backend_is_kept_until_another_is_named_and_makes_venv_anew(
    checkout: Path, installed: list[install.Installation]
) -> None:
    install.install((), "cpu")
    mark = checkout / ".venv" / "mark"
    mark.touch()
    install.install(("dev",), "")
    assert mark.exists()
    install.install((), "cu130")
    assert [i.torch_backend for i in installed] == ["cpu", "cpu", "cu130"]
    assert not mark.exists()


def test_a_failed_installation_is_not_recorded(
    installed: list[install.Installation], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(uv: list[str], wanted: install.Installation) -> None:
        raise install.InstallError("no network")

    with monkeypatch.context() as patch:
        patch.setattr(install, "_install_with", fail)
        with pytest.raises(install.InstallError):
            install.install((), "")
    install.install((), "")
    assert len(installed) == 1


def test_a_folder_that_is_no_environment_is_left_alone(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (checkout / ".venv" / "pyvenv.cfg").unlink()
    (checkout / ".venv" / "notes.txt").touch()
    monkeypatch.setattr(install, "_runs", lambda program: False)
    with pytest.raises(install.InstallError, match="no virtual environment"):
        install.install((), "")
    assert (checkout / ".venv" / "notes.txt").exists()


def test_the_download_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    text = install.describe_download("", first=True)
    assert "about 3 GB to download" in text
    assert "make setup TORCH_BACKEND=cpu" in text
    assert "TORCH_BACKEND" not in install.describe_download("cpu", first=True)


def test_uvs_many_lines_become_a_few(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "_SECONDS_BETWEEN_LINES", 0.0)
    output = (
        "Resolved 3 packages in 5ms\n"
        "Downloading torch (500.0MiB)\n"
        "Downloading numpy (1.5GiB)\n"
        " Downloaded torch\n"
        " Downloaded numpy\n"
        "Prepared 2 packages in 3s\n"
        "Installed 2 packages in 1s\n"
        " + torch==2.13.0\n"
        "error: something else\n"
    )
    assert install._follow(io.StringIO(output)) == ["error: something else\n"]
    shown = capsys.readouterr().out
    assert "downloaded 0.52 of 2.13 GB" in shown
    assert "Installed 2 packages" in shown
    assert "torch==2.13.0" not in shown


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The ZenML configuration of a user, beside a project with one stack."""
    root, config = tmp_path / "project", tmp_path / "zenml"
    for path in (root / "stacks" / "flavors", root / ".zen", config):
        path.mkdir(parents=True)
    (root / "requirements.lock").write_text("zenml==0.98.0")
    (root / "stacks" / "local.yaml").write_text("components: {x: '${STACK_BUCKET}'}")
    (root / "stacks" / "flavors" / "gx.py").write_text("")
    (root / ".zen" / "config.yaml").write_text("active_stack_id: 1")
    (config / "config.yaml").write_text("{user_id: 7, active_stack_id: 5, store: {url: a}}")
    monkeypatch.setattr(apply_stack, "ROOT", root)
    monkeypatch.setenv("ZENML_CONFIG_PATH", str(config))
    return config


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("project/stacks/local.yaml", "components: {}"),
        ("project/stacks/flavors/gx.py", "changed = True"),
        ("project/stacks/flavors/new.py", ""),
        ("project/requirements.lock", "zenml==0.99.0"),
        ("project/.zen/config.yaml", "active_stack_id: 2"),
        ("zenml/config.yaml", "{user_id: 8, store: {url: a}}"),
        ("zenml/config.yaml", "{user_id: 7, store: {url: a server}}"),
        ("zenml/local_stores/default_zen_store/zenml.db", ""),
    ],
)
def test_what_a_stack_stands_on_changes_its_fingerprint(
    file: str, content: str, client: Path
) -> None:
    before = apply_stack.fingerprint("local")
    path = client.parent / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    assert apply_stack.fingerprint("local") not in (before, None)


def test_what_a_run_changes_in_the_users_configuration_does_not(client: Path) -> None:
    before = apply_stack.fingerprint("local")
    (client / "config.yaml").write_text("{user_id: 7, active_stack_id: 6, store: {url: a}, x: 1}")
    assert apply_stack.fingerprint("local") == before


def test_a_variable_that_the_stack_file_names_counts(
    client: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = apply_stack.fingerprint("local")
    monkeypatch.setenv("SOMETHING_ELSE", "x")
    assert apply_stack.fingerprint("local") == before
    monkeypatch.setenv("STACK_BUCKET", "x")
    assert apply_stack.fingerprint("local") != before


def test_a_deleted_configuration_voids_the_stamp(client: Path) -> None:
    (client / "config.yaml").unlink()
    assert apply_stack.fingerprint("local") is None


def test_zenml_is_asked_nothing_when_the_stamp_holds(
    client: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[list[str]] = []

    def run(command: list[str], cwd: Path) -> "subprocess.CompletedProcess[str]":
        calls.append(command[1:])
        return subprocess.CompletedProcess(command, len(calls) == 1)

    monkeypatch.setattr(apply_stack, "STAMP", client.parent / "stamp")
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["apply_stack", "local"])
    assert [apply_stack.main() for _ in range(4)] == [1, 0, 0, 0]
    assert calls == [["-m", "stacks", "apply", "local", "--set"]] * 2
    monkeypatch.setattr(sys, "argv", ["apply_stack", "other"])
    apply_stack.main()
    assert len(calls) == 3


def test_the_zenml_configuration_is_where_zenml_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    from zenml.utils.io_utils import get_global_config_directory

    assert apply_stack.zenml_config_directory() == Path(get_global_config_directory())
    monkeypatch.delenv("ZENML_CONFIG_PATH")
    assert apply_stack.zenml_config_directory() == Path(get_global_config_directory())
    monkeypatch.undo()


def locked() -> list[Requirement]:
    """The lock's lines; a package may have several, for different versions of Python."""
    return [Requirement(line) for line in (ROOT / "requirements.lock").read_text().splitlines()]


def pinned(requirement: Requirement) -> str:
    (specifier,) = requirement.specifier
    assert specifier.operator == "=="
    return specifier.version


def test_the_lock_holds_every_requirement_at_an_allowed_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    wanted += [r for extra in project["optional-dependencies"].values() for r in extra]
    pins: dict[str, list[str]] = {}
    for requirement in locked():
        pins.setdefault(canonicalize_name(requirement.name), []).append(pinned(requirement))
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} is not locked: make lock"
        assert all(requirement.specifier.contains(pin) for pin in pins[name]), f"{name}: make lock"


def test_the_lock_holds_no_address_and_no_path() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"://|file:|(^|[\s@=])[/~]", text, re.MULTILINE)


@pytest.mark.skipif(not (ROOT / install.STAMP).is_file(), reason="installed by hand")
def test_what_is_installed_is_what_is_locked() -> None:
    # Of this environment alone: setuptools adds packages of its own to sys.path when imported.
    packages = [sysconfig.get_path("purelib")]
    found = {
        canonicalize_name(distribution.name): distribution.version.split("+")[0]
        for distribution in importlib.metadata.distributions(path=packages)
    }
    for requirement in locked():
        name = canonicalize_name(requirement.name)
        if name in found and (requirement.marker is None or requirement.marker.evaluate()):
            assert found[name] == pinned(requirement), f"{name}: make setup"


@pytest.mark.parametrize("target", ["help", ""])
def test_make_help_lists_the_targets(target: str) -> None:
    command = ["make", "-C", str(ROOT), *filter(None, [target])]
    environment = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MAKELEVEL"}}
    text = subprocess.run(
        command, capture_output=True, text=True, check=True, env=environment
    ).stdout
    for name in ("setup", "training", "test", "test-engines", "check", "bench", "lock", "clean"):
        assert re.search(rf"^  make {name}  +\w", text, re.MULTILINE)
