"""The training pipeline as its user runs it: one command, then a look at everything it left."""

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cv_factory.data.dataset import ImageDataset
from cv_factory.data.split import Split
from cv_factory.evaluation.evaluation import Evaluation
from cv_factory.inference.predictor import Predictor
from cv_factory.training.trained_model import TrainedModel
from tests.support.commands import assert_codes, run_all
from tests.support.images import encode
from tests.support.project import Project
from tests.support.quick_settings import quick_training
from tests.support.store import cached_steps, mlflow_snapshot, snapshot

STEPS = {
    "ingest",
    "split",
    "validate_data",
    "fit_transform",
    "train",
    "export",
    "evaluate",
    "build_reference",
    "register",
}
#: What each step stores, besides pictures.
FILES = {
    "dataset": {"images.npy", "manifest.parquet", "dataset.json"},
    "split": {"split.npz", "split.json"},
    "data_report": {"data_report.json"},
    "transform": {"tensors.safetensors", "transform.json"},
    "trained_model": {"weights.safetensors", "reference.npz", "model.json"},
    "predictor": {"predictor.onnx", "golden.npz", "contract.json"},
    "evaluation": {
        "predictions.parquet",
        "probabilities.npy",
        "samples.npz",
        "evaluation.json",
    },
    "reference": {"test.npz", "validation.npz", "unfamiliarity.npy", "reference.json"},
    "registration": {
        "registration.json",
        "provenance.json",
        "model_card.md",
        "model_card.html",
    },
}
PICTURES = {
    "dataset": {"samples.png"},
    "split": {"summary.html"},
    "data_report": {"report.html"},
    "transform": {"pca_spectrum.png", "pca_components.png"},
    "trained_model": {"training_curves.png"},
    "predictor": {"golden.png"},
    "evaluation": {"confusion_matrix.png", "report.html"},
    "reference": {"summary.html"},
    "registration": {"card.html"},
}


def training(project: Project, *arguments: str, code: int = 0) -> str:
    """Run the training pipeline; return what it printed."""
    done = project.run("--pipeline", "training", *arguments, code=code)
    return done.stdout + done.stderr


def quickly(project: Project, *settings: str, code: int = 0, dry: bool = False) -> str:
    """Run it with a quick model and no gates, or only plan that; return what it printed."""
    only_plan = ["--dry-run"] if dry else []
    done = project.run(*quick_training("gates=[]", *settings), *only_plan, code=code)
    return done.stdout + done.stderr


def planned_cached(plan: str) -> set[str]:
    """Return the steps that a dry run says the cache will answer."""
    states = dict(re.findall(r"│ (\w+)\s+│.*│ (cached|to be run)\s+│", plan))
    assert states.keys() == STEPS, plan
    return {name for name, state in states.items() if state == "cached"}


def test_one_command_trains_evaluates_and_stages(
    trained_project: Project, golden: Callable[[str, str], None]
) -> None:
    output = trained_project.history["training"].stdout
    golden("training_summary.txt", _without_measurements(output))
    accuracy = re.search(r"Test accuracy\s+([\d.]+)%\s+\(95% interval", output)
    assert accuracy is not None, output
    assert float(accuracy[1]) >= 97
    assert "1,797 images of 8x8x1, 10 classes" in output
    assert "PASSED digits version 1 is in staging" in output
    assert "not applicable" in output, "the gate against production, without a production model"

    content = snapshot(trained_project)
    assert content["status"] == "completed"
    assert content["steps"].keys() == STEPS
    for step in content["steps"].values():
        for name, output_ in step["outputs"].items():
            assert output_["materializer"].startswith("materializers.")
            names = {path.name for path in Path(output_["uri"]).iterdir()}
            assert FILES[name] <= names
            assert {Path(uri).name for uri in output_["pictures"]} == PICTURES[name]
            assert names == FILES[name] | PICTURES[name], "nothing else is stored"


def _without_measurements(output: str) -> str:
    """Return the summary at the end of a run's output, with # for what differs between runs.

    Whether the model has an error on the validation images depends on the processor.
    """
    summary = re.sub(r"(?m)^Warning .*\n( {15}.*\n)*", "", output[output.index("\nDataset ") + 1 :])
    for pattern in (r"\d+\.\d+(?=%)", r"\b0\.\d+", r"(?<=run )\S+(?=:)", r"sqlite:\S+(?=')"):
        summary = re.sub(pattern, "#", summary)
    return re.sub(r"[ ─━]{2,}", "  ", summary)


def test_every_place_shows_the_figures_of_what_is_served(trained_project: Project) -> None:
    """Log loss, best epoch and number of parameters: artifacts, metadata and card agree."""
    outputs: dict[str, dict[str, Any]] = {}
    for step in snapshot(trained_project)["steps"].values():
        outputs |= step["outputs"]
    folder = {name: Path(output["uri"]) for name, output in outputs.items()}
    dataset, split = ImageDataset.load(folder["dataset"]), Split.load(folder["split"])
    predictor, trained = (
        Predictor.load(folder["predictor"]),
        TrainedModel.load(folder["trained_model"]),
    )
    evaluation = Evaluation.load(folder["evaluation"])
    card = (folder["registration"] / "model_card.md").read_text()

    served = predictor.predict(dataset.images[split.test]).probabilities
    of_true_class = served[np.arange(len(served)), dataset.labels[split.test]].astype(np.float64)
    log_loss = evaluation.metrics["log_loss"].value
    assert log_loss == -np.log(of_true_class).mean()
    assert f"| Log loss | {log_loss:.4f} |" in card

    assert outputs["trained_model"]["metadata"]["best_epoch"] == str(trained.best_epoch)
    assert f"| best epoch | {trained.best_epoch} |" in card

    assert evaluation.behavior.cost is not None
    parameters = evaluation.behavior.cost.parameters
    assert outputs["predictor"]["metadata"]["parameters"] == str(parameters)
    assert f"| parameters | {parameters:,} |" in card

    check = predictor.contract.calibration
    assert check is not None
    assert check.log_loss[1] <= check.log_loss[0]
    assert check.warning in card
    assert 0.3 < predictor.contract.temperature < 1
    assert served.min() > 1e-7


def test_the_version_carries_its_lineage(trained_project: Project) -> None:
    (version,) = snapshot(trained_project)["models"]["digits"]
    facts = version["metadata"]
    assert version["stage"] == "staging"
    assert facts["git_commit"] == trained_project.head
    assert facts["git_dirty"] == "false"
    assert facts["stack"] == "local"
    for name in ("config", "data_fingerprint", "split_fingerprint", "code_fingerprint"):
        assert re.fullmatch("[0-9a-f]{64}", facts[name]), name
    assert facts["package_torch"].startswith("2.")
    assert {"dataset", "split", "trained_model", "predictor", "evaluation"} <= set(
        version["artifacts"]
    )


def test_mlflow_has_the_run_and_mirrors_the_version(trained_project: Project) -> None:
    content = mlflow_snapshot(trained_project)
    (run,) = content["runs"]
    reported_metrics = {"train_loss", "validation_loss", "validation_accuracy", "learning_rate"}
    system_metrics = {"seconds", "images_per_second", "system_cpu_percent", "system_rss_mb"}
    assert {
        name: run["logged"].get(name) for name in reported_metrics | system_metrics
    } == dict.fromkeys(reported_metrics | system_metrics, 30), "every epoch is in the tracker"
    assert run["metrics"]["validation_accuracy"] > 0.95
    assert run["metrics"]["system_rss_mb"] > 10
    assert run["params"]["train.batch_size"] == "64"
    assert run["metrics"]["test_accuracy"] >= 0.97
    model = content["models"]["digits"]
    assert model["aliases"] == {"staging": "1"}
    (version,) = model["versions"]
    assert version["tags"]["git_commit"] == trained_project.head
    assert version["run"] == run["id"]
    assert version["source"].startswith("models:/"), "a model that MLflow loads"


def test_nothing_stored_is_a_pickle(trained_project: Project) -> None:
    files = [
        path
        for path in (trained_project.zenml_config / "local_stores").rglob("*")
        if path.is_file()
    ]
    assert len(files) > 20
    for path in files:
        assert path.suffix not in (".pkl", ".pickle", ".joblib", ".pt", ".pth"), path
        assert not re.match(rb"\x80[\x02-\x05]", path.read_bytes()[:2]), path


def test_a_second_run_is_cached_and_registers_nothing_new(trained_project: Project) -> None:
    output = training(trained_project)
    assert "8 of 9 steps" in output
    assert "registered before: nothing new" in output
    content = snapshot(trained_project)
    assert cached_steps(content) == STEPS - {"register"}
    assert [v["number"] for v in content["models"]["digits"]] == [1]
    mirrored = mlflow_snapshot(trained_project)
    assert len(mirrored["models"]["digits"]["versions"]) == 1
    assert len(mirrored["runs"]) == 2, "its registration is not cached, and reported whole"


def test_a_killed_training_resumes_to_the_same_predictor_bytes(
    trained_project: Project,
) -> None:
    first = Path(snapshot(trained_project)["steps"]["export"]["outputs"]["predictor"]["uri"])
    again = ("--no-cache", "--set", "train.checkpoint_seconds=0")
    trained_project.kill_run("--pipeline", "training", *again, after="epoch 12/30")
    counted = trained_project.warm(
        "-c",
        "from zenml.client import Client\n"
        "print('MODELS', Client().list_artifact_versions(artifact='trained_model').total)",
    )
    assert "MODELS 1" in counted.stdout, "nothing of the killed run looks complete"
    (training_,) = (trained_project.zenml_config / "local_stores" / "checkpoints").iterdir()
    output = training(trained_project, *again)
    checkpoint = re.search(r"Continuing from checkpoint (\S+): epoch (\d+),", output)
    assert checkpoint is not None, output
    assert Path(checkpoint[1]).parent == training_
    assert 12 <= int(checkpoint[2]) < 30
    assert "epoch 11/30" not in output
    assert not training_.exists(), "checkpoints are removed after success"
    assert "0 of 9 steps" in output
    assert "registered before: nothing new" in output
    content = snapshot(trained_project)
    second = Path(content["steps"]["export"]["outputs"]["predictor"]["uri"])
    assert first != second
    for name in FILES["predictor"]:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert [v["number"] for v in content["models"]["digits"]] == [1]


def test_the_cache_sees_the_library_and_the_configuration(trained_project: Project) -> None:
    def edit(name: str) -> None:
        with (trained_project.root / name).open("a") as file:
            file.write("\n# edited by a test\n")

    def planned(*settings: str) -> set[str]:
        return planned_cached(quickly(trained_project, *settings, dry=True))

    data_steps = {"ingest", "split", "validate_data"}
    everything = STEPS - {"register"}
    edit("cv_factory/transforms/pca.py")
    plan = quickly(trained_project, dry=True)
    assert planned_cached(plan) == data_steps
    changed = "Not cached: fit_transform, since cv_factory/transforms/pca.py changed since commit"
    assert changed in " ".join(plan.split())
    assert "3 of 9 steps: ingest, split, validate_data" in quickly(trained_project)
    assert cached_steps(snapshot(trained_project)) == data_steps
    edit("cv_factory/evaluation/plots/style.py")
    assert planned("gates=[{metric: accuracy, min: 0.5}]") == everything, "pictures and gates"
    assert planned("evaluate.bootstrap_samples=500") == everything - {"evaluate"}
    assert planned("model.C=0.5") == data_steps | {"fit_transform"}


def test_a_failed_gate_refuses_and_takes_the_stage_away(trained_project: Project) -> None:
    output = training(trained_project, "--set", "gates.1.min=1.0", code=3)
    assert "accuracy at least 1" in output
    assert "REFUSED" in output
    (version,) = snapshot(trained_project)["models"]["digits"]
    assert version["stage"] == "none"
    assert mlflow_snapshot(trained_project)["models"]["digits"]["aliases"] == {}
    assert "PASSED digits version 1 is in staging" in training(trained_project)


def test_a_production_model_of_other_images_fails_the_comparison(trained_project: Project) -> None:
    trained_project.warm(
        "-c",
        "from zenml.client import Client\n"
        "Client().get_model_version('digits', '1').set_stage('production', force=True)",
    )
    gate = "gates=[{metric: accuracy, max_drop_vs_production: 1.0}]"
    output = quickly(trained_project, "data.height=10", "data.width=10", gate, code=3)
    assert "production could not be scored" in " ".join(output.split())


def test_a_damaged_or_hostile_predictor_is_refused_and_executes_nothing(
    trained_project: Project, tmp_path: Path
) -> None:
    marker = tmp_path / "executed"

    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (os.mkdir, (str(marker),))

    outputs = snapshot(trained_project)["steps"]["export"]["outputs"]
    directory = Path(outputs["predictor"]["uri"])
    (directory / "predictor.onnx").write_bytes(pickle.dumps(Hostile()))
    output = training(trained_project, code=1)
    assert "predictor.onnx has" in output
    assert "Traceback" not in output
    assert not marker.exists()


def test_an_int8_predictor_is_evaluated_gated_and_registered(
    trained_project: Project,
) -> None:
    gate = "gates=[{metric: accuracy, min: 0.95}, {metric: accuracy_lost_to_precision, max: 0.03}]"
    output = training(trained_project, "--set", "export.precision=int8", "--set", gate)
    assert "PASSED digits version" in output
    steps = snapshot(trained_project)["steps"]
    assert steps.keys() == STEPS | {"export_float"}
    exported = steps["export"]["outputs"]["predictor"]
    in_float = steps["export_float"]["outputs"]["float_predictor"]
    assert exported["metadata"]["precision"] == "int8"
    assert int(exported["metadata"]["onnx_bytes"]) < 0.5 * int(in_float["metadata"]["onnx_bytes"])
    evaluation = steps["evaluate"]["outputs"]["evaluation"]["metadata"]
    assert evaluation["predictor_fingerprint"] == exported["metadata"]["fingerprint"]
    (registration,) = steps["register"]["outputs"].values()
    card = (Path(registration["uri"]) / "model_card.md").read_text()
    assert re.search(r"\| int8 \| 0\.9\d+ \| .*\n\| float32 \| 0\.9\d+", card), card


def test_refused_data_stop_the_run_before_anything_is_fitted(trained_project: Project) -> None:
    output = training(trained_project, "--set", "validation.min_images=5000", code=3)
    assert "min_images" in output
    assert "allowed at least 5,000" in output
    assert "Traceback" not in output
    content = snapshot(trained_project)
    assert content["status"] == "failed"
    assert content["steps"].keys() == {"ingest", "split", "validate_data"}
    again = training(trained_project, "--dry-run", "--set", "validation.min_images=5000")
    assert planned_cached(again) == {"ingest", "split"}, "a refusal is not cached"
    report = trained_project.warm(
        "-c",
        "from zenml.client import Client\n"
        "versions = Client().list_artifact_versions(artifact='data_report', hydrate=True).items\n"
        "print([version.load().ok for version in versions])",
    )
    assert "False" in report.stdout, "the report of the refused data is stored"


def test_a_folder_of_images_is_trained_on(project: Project, tmp_path: Path) -> None:
    write_shapes(tmp_path / "shapes")
    (tmp_path / "shapes" / "disc" / "broken.png").write_bytes(b"not an image")
    settings = (
        "data.source=folder",
        f"data.path={tmp_path / 'shapes'}",
        "transform.pca.n_components=8",
    )
    (tmp_path / "shapes" / "empty").mkdir()
    (tmp_path / "shapes" / "rare").mkdir()
    rare = tmp_path / "shapes" / "rare" / "1.png"
    rare.write_bytes(encode(Image.new("RGB", (12, 12))))
    refused = quickly(project, *settings, "data.max_unreadable_share=0.02", code=3)
    assert "Found rare (1 image), allowed at least 5." in refused
    assert "--set data.drop_classes_below=5" in refused
    rare.unlink()
    output = quickly(project, *settings, "data.max_unreadable_share=0.02")
    assert (
        "Not cached: ingest, since the source's images, labels, classes or decoder changed."
        in output
    )
    assert "disc/broken.png: not an image" in output
    assert "120 images of 12x12x3, 2 classes, 1 unreadable" in output
    assert "Data           notice: 2 empty folders left out: empty, rare." in output
    stopped = quickly(project, *settings, "data.max_unreadable_share=0.001", code=1)
    assert "1 of 121 images (0.8%) cannot be read, allowed are 0.1%" in stopped
    assert "disc/broken.png: not an image" in stopped
    assert "Traceback" not in stopped


def test_settings_that_cannot_work_stop_the_run_before_anything_is_trained(
    trained_project: Project,
) -> None:
    settings = (
        "train.device=cuda",
        "transform.pca.n_components=65",
        "train.batch_size=5000",
        "register.approvers=[nobody-of-this-name]",
    )
    options = [word for setting in settings for word in ("--set", setting)]
    done = trained_project.run("--pipeline", "training", *options, code=2, CUDA_VISIBLE_DEVICES="")
    assert "transform.pca.n_components is 65, but" in done.stderr
    assert "train.batch_size is 5000, but" in done.stderr
    assert "train.device is cuda, but PyTorch sees no GPU on this machine" in done.stderr
    assert "there is no system user 'nobody-of-this-name'" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Step `" not in done.stdout + done.stderr, "nothing has run"


def test_a_dry_run_prints_the_plan_and_changes_nothing(trained_project: Project) -> None:
    before = snapshot(trained_project)
    gpu = ("--set", "zenml.resources={train: {gpu_count: 1}}", "--set", "train.epochs=3")
    output = training(trained_project, "--dry-run", *gpu)
    assert planned_cached(output) == {"ingest", "split", "validate_data", "fit_transform"}
    assert "gpu_count 1" in output
    assert "Not cached: train, since epochs is 3, was 30." in " ".join(output.split())
    assert snapshot(trained_project) == before


def test_a_listing_writes_nothing(trained_project: Project) -> None:
    def files() -> dict[str, tuple[int, bytes]]:
        paths = [p for p in trained_project.zenml_config.rglob("*") if p.is_file()]
        return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in paths}

    before = files()
    listings = [["models"], ["status"], ["history", "--verify"], ["card", "1"], ["trace", "1"]]
    listings.append(["--pipeline", "training", "--dry-run"])
    done = run_all(trained_project, *listings)
    assert_codes(done, *[0] * len(listings))
    after = files()
    assert after.keys() == before.keys()
    assert [path for path in after if after[path] != before[path]] == []


_INVALID_ARGUMENTS: tuple[tuple[list[str], str], ...] = (
    (["--set", "trian.epochs=3"], "Did you mean 'train'?"),
    (["--set", "train.epochs=0"], "allowed: [1, 10000]"),
    (["--config", "nowhere.yaml"], "nowhere.yaml does not exist"),
    (["--preset", "nothing"], "Valid presets: overfit, smoke"),
    (["--set", "data.source=folder", "--set", "data.path=nowhere"], "does not exist"),
    (["--stack", "nothing"], "There is no stack 'nothing'"),
    (["--pipeline", "nothing"], "Valid pipelines: batch_inference, "),
    ([], "python -m stacks apply local --set"),
)


def test_invalid_arguments_are_refused_before_anything_is_created(
    pristine_project: Project, golden: Callable[[str, str], None]
) -> None:
    commands = [["--pipeline", "training", *arguments] for arguments, _ in _INVALID_ARGUMENTS]
    refused = run_all(pristine_project, *commands)
    for done, (arguments, expected) in zip(refused, _INVALID_ARGUMENTS, strict=True):
        assert done.code == 2, (arguments, done.output)
        assert expected in " ".join(done.output.split())
        assert "Traceback" not in done.output
    stores = pristine_project.zenml_config / "local_stores"
    assert not list(stores.rglob("*.npy"))
    texts = (f"$ run.py {' '.join(c)}\n{d.output}" for c, d in zip(commands, refused, strict=True))
    golden("refusals.txt", "\n".join(texts).replace(str(pristine_project.root), "PROJECT"))


def write_shapes(root: Path) -> None:
    """Write 60 PNGs each of two classes, all different."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, brightness in (("disc", 150), ("stripe", 60)):
        (root / name).mkdir(parents=True)
        for number in range(60):
            pixels = rng.integers(0, brightness, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:03d}.png")
