"""Output folder of batch predictions: the configured one, or one in the stack's store."""

from cv_factory.artifacts.files import fingerprint
from cv_factory.config.batch_inference import OutputConfig
from cv_factory.inference.batch import BatchJob
from cv_factory.inference.batch_output import OutputFolder
from registry.store_files import open_store_folder

_FOLDER = "batch_predictions"


def open_output_folder(config: OutputConfig, job: BatchJob) -> OutputFolder:
    """Open the output folder of a job; the same job is given the same folder every time.

    Raises:
        SourceError: No file system handles the configured URL.
    """
    if config.path is not None:
        return OutputFolder.open(config.path, config.storage_options)
    name = f"{job.model.name}-{job.model.version}-{fingerprint(job.identity)[:16]}"
    return open_store_folder(f"{_FOLDER}/{name}")
