"""MLflow model of a predictor: its files, the code that serves them, signature and input example.

``mlflow.pyfunc.load_model`` and ``mlflow models serve`` load it. It holds no pickle.
"""

import shutil
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import cv_factory
from cv_factory.code_fingerprint import source_files
from cv_factory.data.encode import encode_png
from cv_factory.inference.predictor import Predictor
from cv_factory.serving import pyfunc_model

_ROOT = Path(cv_factory.__file__).resolve().parents[1]
_LOADER = pyfunc_model.__name__
_REQUIREMENTS = ("mlflow", "numpy", "onnxruntime", "pillow", "pydantic", "safetensors")


def save_mlflow_model(predictor: Predictor, directory: Path, model_id: str | None = None) -> None:
    """Write the MLflow model of a predictor into a directory that does not exist yet.

    Args:
        predictor: The predictor, of which nothing is changed.
        directory: Where ``MLmodel`` and the other files go.
        model_id: Id that MLflow gave the model.
    """
    import mlflow
    import pandas as pd
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Map

    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, pyfunc_model.COLUMN)]),
        outputs=Schema(
            [
                ColSpec(DataType.string, "label", required=False),
                ColSpec(Map(DataType.double), "probabilities"),
                # Of a predictor that scores how unlike its training images an image is.
                ColSpec(DataType.boolean, "unfamiliar", required=False),
                ColSpec(DataType.double, "unfamiliarity", required=False),
            ]
        ),
    )
    contract = predictor.contract
    with TemporaryDirectory(prefix="cv-factory-") as scratch:
        data, code = Path(scratch, "predictor"), Path(scratch, "cv_factory")
        data.mkdir()
        predictor.save(data)
        _copy_code(code.parent)
        mlflow.pyfunc.save_model(
            directory,
            loader_module=_LOADER,
            data_path=str(data),
            code_paths=[str(code)],
            mlflow_model=Model(model_id=model_id),
            signature=signature,
            input_example=pd.DataFrame(
                {pyfunc_model.COLUMN: [encode_png(predictor.golden.images[0])]}
            ),
            pip_requirements=[f"{name}=={version(name)}" for name in _REQUIREMENTS],
            metadata={
                "predictor": predictor.fingerprint,
                "classes": list(contract.class_names),
                "image_shape": list(contract.input_shape),
            },
        )


def _copy_code(target: Path) -> None:
    """Copy the modules of ``cv_factory`` that the pyfunc imports."""
    for name in ("cv_factory/__init__.py", *source_files(_LOADER)):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_ROOT / name, target / name)
