"""ONNX Runtime as all of the library opens it."""

import os

import pytest

from cv_factory.artifacts import onnx_session


def test_telemetry_is_off_unless_the_user_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    onnx_session.import_onnxruntime()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    onnx_session.import_onnxruntime()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"


def test_sessions_follow_the_cpu_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "negation",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    monkeypatch.setattr(onnx_session, "available_cpus", lambda: 3)
    session = onnx_session.open_session(model.SerializeToString())
    assert session.get_session_options().intra_op_num_threads == 3
    assert session.run(None, {"x": [2.0]})[0].tolist() == [-2.0]
