"""README and pages, walked: every command of their blocks is run here, or in a test named here.

Needs no engine, but minutes.
"""

import re
import shlex
import sys
from pathlib import Path

import pytest

from cv_factory.processes.ports import find_free_port
from tests.support.commands import zenml_models
from tests.support.documentation import shell_commands
from tests.support.images import write_class_folders
from tests.support.project import Completed, Project
from tests.support.quick_settings import quick_training

pytestmark = [pytest.mark.engines, pytest.mark.timeout(1200)]

PAGES = ("README.md", *(f"docs/{n}.md" for n in (
    "data-issues", "deployment", "evaluation", "mlflow", "models", "provenance", "stacks",
    "training", "upgrading",
)))  # fmt: skip
#: Run by another test, by the person who runs these, or by CI.
ELSEWHERE = {
    "make training": "the project of these tests: setup, then the training pipeline, as it ships",
    "make test": "CI",
    "make setup": "CI",
    "zenml login --local": "tests/e2e/test_dashboard.py",
    "python -m cv_factory.serving bundle --port 8080": "tests/unit/serving, the fixture `service`",
    "python run.py --pipeline deployment --model digits": "of a stack aws: tests/aws",
    "python -m stacks apply aws --from-cloudformation cv-factory --set": "tests/aws/conftest.py",
    "python -m stacks apply slurm --set": "tests/e2e/test_slurm.py",
    "export CV_FACTORY_SHARED=/shared/cv-factory": "tests/e2e/test_slurm.py",
    "python run.py --pipeline training --set zenml.resources.train.gpu_count=1":
        "tests/aws/test_step_settings.py; a machine with a GPU",
    "docker build -f bento/Containerfile -t digits bento":
        "tests/unit/deployment/test_container.py",
    "docker run --read-only --tmpfs /tmp -p 3000:3000 -p 3001:3001 -e CV_FACTORY_API_KEYS digits":
        "tests/unit/deployment/test_container.py",
    "export MLFLOW_TRACKING_URI=...": "tests/e2e/test_mlflow.py",
    "mlflow models serve -m models:/digits@production --env-manager local --port 5001":
        "tests/e2e/test_mlflow.py",
    "curl -H 'Content-Type: application/json' http://127.0.0.1:5001/invocations "
    """-d '{"dataframe_records": [{"image": "'$(base64 -w0 samples/3/1.png)'"}]}'""":
        "tests/e2e/test_mlflow.py",
    "python run.py trace PREDICTION_ID": "tests/e2e/test_deployment.py",
    "python run.py labels suspicious --out doubtful.csv": "tests/e2e/test_curation.py",
    "python run.py --pipeline training --set data.exclude=doubtful.csv":
        "tests/unit/data/test_exclusion.py",
    "python run.py labels next --from unlabelled --n 50 --out next.csv":
        "tests/e2e/test_curation.py, with another folder and number",
    "python run.py --pipeline monitoring": "tests/e2e/test_story.py",
    "python run.py labels queue --n 100": "tests/e2e/test_story.py, with another number",
    "python run.py tick --dry-run": "tests/e2e/test_story.py",
    "python run.py --pipeline deployment --set endpoint.shadow_share=1.0 "
    "--set serving.log.predictions=/var/log/digits": "tests/e2e/test_deployment.py",
    "python run.py --pipeline deployment --set endpoint.tls.certificate=server.pem "
    "--set endpoint.tls.key=server.key": "tests/e2e/test_deployment.py",
}  # fmt: skip


class Walk:
    """Runs the commands of the pages, and remembers which."""

    def __init__(self, project: Project, port: int) -> None:
        self.project, self.done = project, set(ELSEWHERE)
        self._port = port
        self._pages = {command for page in PAGES for command in shell_commands(page)}

    def __call__(self, command: str, **replaced: str) -> Completed:
        """Run a command of the pages with some words replaced by others; the port is our own."""
        assert command in self._pages, f"no page has: {command}"
        self.done.add(command)
        line = command.replace(":3000", f":{self._port}")
        for word, other in replaced.items():
            assert word in line, f"{word} is not in: {line}"
            line = line.replace(word, other)
        words = shlex.split(line)
        if words[:2] == ["python", "run.py"] and ">" not in words:
            return self.project.run(*words[2:])
        line = re.sub(r"^python ", f"{shlex.quote(sys.executable)} ", line)
        return self.project.command(["bash", "-ec", line])

    def rest(self) -> set[str]:
        """Return the commands that were not run."""
        return self._pages - self.done


def test_every_command_works_as_it_stands(trained_project: Project) -> None:
    port = find_free_port()
    settings = trained_project.root / "configs" / "deployment.yaml"
    settings.write_text(f"endpoint: {{port: {port}}}\n")
    walk = Walk(trained_project, port)
    _walk_the_readme(walk)
    _move_versions(walk)
    _score_and_compress(walk)
    _hand_over_the_statement(walk)
    _refuse_a_version(walk)
    _use_another_model(walk)
    _check_the_stack(walk)
    assert walk.rest() == set()


def _walk_the_readme(walk: Walk) -> None:
    """In its own order."""
    assert "digits, version 1" in walk("python run.py card 1").stdout
    walk("python run.py trace 1")
    walk("python run.py --pipeline deployment --dry-run")
    walk("python run.py --pipeline deployment")
    walk("python run.py sample")
    predict = "curl --data-binary @samples/3/1.png -H 'Content-Type: image/png'"
    assert '"label":"3"' in walk(f"{predict} http://127.0.0.1:3000/predict").stdout
    assert "version 1, 100%" in walk("python run.py status").stdout
    assert 'cv_factory_service_up{arm="stable"' in (
        walk("curl -sf http://127.0.0.1:3000/metrics").stdout
    )
    # Processors round in different ways: 98.89% with AVX-512, 98.61% with AVX2 only.
    trained = walk.project.history["training"].stdout
    (percent,) = re.findall(r"^Test accuracy +([\d.]+)%", trained, re.MULTILINE)
    assert f"{float(percent) / 100:.4f}" in walk("python run.py models").stdout
    walk("python run.py --pipeline training --set train.seed=1")
    walk("python run.py --pipeline deployment --set endpoint.canary_share=0.1")
    walk("python run.py promote 2")
    walk("python run.py rollback")
    batch = "python run.py --pipeline batch_inference --set data.source=folder --set data.path="
    walk(f"{batch}samples --set output.path=scores")
    walk("python run.py export 1 --to bundle")


def _score_and_compress(walk: Walk) -> None:
    batch = "python run.py --pipeline batch_inference --set"
    walk(f"{batch} data.source=folder --set data.path=NEW_IMAGES", NEW_IMAGES="samples")
    walk(
        f"{batch} model.version=3 --set output.path=s3://bucket/scores",
        **{"version=3": "version=1", "s3://bucket/scores": "more_scores"},
    )
    assert '"production"' in walk("python run.py status [--json]", **{"[--json]": "--json"}).stdout
    walk("python run.py --pipeline training --set export.precision=int8")


def _move_versions(walk: Walk) -> None:
    second = {"4": "2"}
    walk("python run.py stage 4", **second)
    walk('python run.py approve 4 --reason "read it"', **second)
    walk('python run.py promote 4 --reason "better"', **second)
    walk('python run.py rollback --reason "complaints"')
    walk("python run.py models")
    walk("python run.py card 4 --html card.html", **second)
    walk("python run.py trace 4 --verify --reproduce", **second)
    walk("python run.py verify 4", **second)
    walk("python run.py history --verify")
    walk("python run.py stage 4", **second)
    walk("python run.py promote 2 --reason 'fewer errors'")
    walk("python run.py rollback --by ANN --reason 'complaints'")
    walk("python run.py stage 4", **second)
    canary = "python run.py --pipeline deployment --set endpoint.canary_share=0.1"
    walk(f"{canary} --set endpoint.sticky.by=api_key")
    walk("python run.py withdraw 2 --reason 'more errors'")
    walk('python run.py reject 4 --reason "reads 4 as 9"', **{"reject 4": "reject 2"})


def _hand_over_the_statement(walk: Walk) -> None:
    first = {" 4": " 1"}
    walk("python run.py trace 4 --attestation digits-4.intoto.json", **first)
    walk("python run.py signing-key > cv-factory.pub")
    walk.project.run("export", "1", "--onnx", "--to", "graph")
    walk(
        "python run.py verify digits-4.intoto.json --public-key cv-factory.pub --predictor FOLDER",
        FOLDER="graph",
    )
    walk("python run.py trace 4 --provenance FILE", **first, FILE="statement.json")
    walk("python -m cv_factory.deployment.bento bundle bento")
    assert Path(walk.project.root, "bento", "Containerfile").is_file()


def _refuse_a_version(walk: Walk) -> None:
    walk.project.run(*quick_training("gates=[{metric: accuracy, min: 0.999}]"), code=3)
    walk(
        "python run.py override 4 --gate GATE --reason WHY",
        **{" 4 ": " 4 "}, GATE="'accuracy at least 0.999'",
    )  # fmt: skip


def _use_another_model(walk: Walk) -> None:
    write_class_folders(walk.project.home / "pets", per_class=60, size=32)
    own = "python run.py --pipeline training --set data.source=folder --set data.path=~/pets"
    walk(f"{own} --model pets", **{"~": str(walk.project.home)})


def _check_the_stack(walk: Walk) -> None:
    for command in ("list", "apply local", "check local"):
        walk(f"python -m stacks {command}")
    walk("zenml stack set local", zenml=str(Path(sys.executable).with_name("zenml")))
    verbs = "list", "describe UUID", "logs UUID --tail 20 --follow", "stop UUID", "delete UUID"
    walk.done |= {f"zenml model-deployer models {verb}" for verb in verbs}
    zenml_models(walk.project, *(verb.removesuffix(" --follow") for verb in verbs))
    walk("python run.py --pipeline training")
