"""Endpoints on SageMaker that serve Bentos: boto3 and the library alone, no ZenML."""
