"""Step ``predict_batch``: score images of any source and write Parquet."""

from typing import Annotated

from zenml import step

import materializers  # noqa: F401  (registers them)
from cv_factory.config.batch_inference import OutputConfig
from cv_factory.config.data import DataConfig
from cv_factory.inference.batch_predictions import BatchPredictions
from cv_factory.inference.predictor import Predictor


@step(enable_cache=False)
def predict_batch(
    predictor: Predictor,
    data: DataConfig,
    output: OutputConfig,
    model_name: str,
    model_version: int,
) -> Annotated[BatchPredictions, "predictions"]:
    """Score what is missing in the output. Never cached: the output folder is the state."""
    from cv_factory.data.sources import open_source
    from cv_factory.inference.batch import BatchJob, ScoringModel, score
    from registry.batch_destination import open_output_folder

    model = ScoringModel(model_name, model_version, predictor)
    with open_source(data, labelled=False) as source:
        job = BatchJob(source, data, model, output.rows_per_part)
        return score(job, open_output_folder(output, job))
