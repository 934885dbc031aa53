"""Pipeline ``training``: labelled images in, a gated and registered predictor out."""

from zenml import pipeline

from cv_factory.artifacts.files import fingerprint
from cv_factory.config.training import TrainingPipelineConfig
from steps.build_reference import build_reference
from steps.compute_features import compute_features
from steps.evaluate import evaluate
from steps.export import export
from steps.export_backbone import export_backbone
from steps.export_float import export_float
from steps.find_data_issues import find_data_issues
from steps.fine_tune import fine_tune
from steps.fit_transform import fit_transform
from steps.ingest import ingest
from steps.register import register
from steps.search import search
from steps.split import split
from steps.train import train
from steps.validate_data import validate_data


@pipeline(name="training")
def training(
    config: TrainingPipelineConfig, source_fingerprint: str, lineage: dict[str, str]
) -> None:
    """Train on the configured images; nothing is fitted before the data is validated."""
    dataset = ingest(config.data, source_fingerprint)
    parts = split(dataset, config.split)
    features = issues = None
    if config.features is not None:
        backbone = export_backbone(config.features.backbone, config.features.input_size)
        features = compute_features(dataset, backbone, config.features.horizontal_flip)
        issues = find_data_issues(dataset, parts, features)
    report = validate_data(dataset, parts, config.validation, issues)
    if features is not None and config.features is not None and config.features.fine_tune:
        tuned = fine_tune(dataset, parts, features, config.features, config.train, after=[report])
        features = compute_features(dataset, tuned, config.features.horizontal_flip)
    transform = fit_transform(dataset, parts, config.transform, features, after=[report])
    search_result = None
    if config.search is not None:
        space = (config.transform, config.model, config.train, config.search)
        search_result = search(dataset, parts, *space, features, after=[report])
    trained = train(dataset, parts, transform, config.model, config.train, search_result, features)
    settings = (config.calibration, config.familiarity)
    export_inputs = (trained, transform, dataset, parts, *settings, features)
    config_fingerprint = fingerprint(config.predictor_fields())
    float_predictor = (
        export_float(*export_inputs, config_fingerprint) if config.export.is_reduced else None
    )
    predictor = export(*export_inputs, config.export, config_fingerprint, float_predictor)
    reference = build_reference(
        predictor, dataset, parts, config.evaluate.robustness_images, config.evaluate.seed
    )
    evaluation = evaluate(predictor, dataset, parts, config.evaluate, float_predictor, reference)
    register(
        predictor,
        evaluation,
        trained,
        dataset,
        parts,
        report,
        gates=config.applicable_gates,
        evaluate=config.evaluate,
        train=config.train,
        config=config.registration,
        lineage=lineage,
        reference=reference,
        search_result=search_result,
    )
