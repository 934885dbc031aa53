"""Sends one image with KServe's client as it is; prints what it answers as JSON.

Run in an environment with kserve: kserve_client.py URL KEY IMAGE
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


async def infer(url: str, key: str, image: bytes) -> list[dict[str, Any]]:
    """Return the outputs of requests with binary and with JSON outputs, by name."""
    tensor = InferInput("image", [1], "BYTES")
    tensor.set_data_from_numpy(np.array([image], object))
    binary = [RequestedOutput("probabilities", {"binary_data": True}), RequestedOutput("label")]
    answers = []
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        assert await client.is_server_live(url)
        assert await client.is_server_ready(url)
        assert await client.is_model_ready(url, "digits")
        for outputs in (None, binary):
            request = InferRequest("digits", [tensor], request_id="a", request_outputs=outputs)
            answer = await client.infer(
                url, request, model_name="digits", headers={"X-API-Key": key}
            )
            # Its parser of bytes drops the version.
            assert (answer.id, answer.parameters["version"]) == ("a", "7")
            answers.append({o.name: o.as_numpy().ravel().tolist() for o in answer.outputs})
    return answers


if __name__ == "__main__":
    service_url, api_key, file = sys.argv[1:]
    outputs_of_all = asyncio.run(infer(service_url, api_key, Path(file).read_bytes()))
    print(json.dumps(outputs_of_all, default=bytes.decode))
