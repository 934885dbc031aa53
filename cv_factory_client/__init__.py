"""Client of CV Factory's prediction services, over HTTP and gRPC.

It needs httpx, and grpcio for ``grpc://`` addresses; it imports nothing of the project.
"""

from cv_factory_client.clients import AsyncPredictionClient, PredictionClient
from cv_factory_client.errors import ClientConfigError, ClientError, ServiceError
from cv_factory_client.results import ImagePrediction, Label, ModelInfo
from cv_factory_client.retries import RetryPolicy

__all__ = [
    "AsyncPredictionClient",
    "ClientConfigError",
    "ClientError",
    "ImagePrediction",
    "Label",
    "ModelInfo",
    "PredictionClient",
    "RetryPolicy",
    "ServiceError",
]
