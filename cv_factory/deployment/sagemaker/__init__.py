"""Endpoints on SageMaker that serve Bentos, by boto3 and without ZenML.

Whatever calls AWS raises ``AwsError`` where AWS refuses the call or cannot be reached.
"""
