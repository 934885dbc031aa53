"""The WebSocket route, with a real client over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cv_factory.deployment.local.routes import Backend
from cv_factory.serving.application import Application
from cv_factory.serving.auth.api_keys import ApiKeyStore, add_key, revoke_key
from cv_factory.serving.logging.json_lines import configure_event_logging
from cv_factory.serving.prediction_service import PredictionService
from cv_factory.serving.protocols.websocket import check_origin, parse_request_id
from tests.support.digits_service import DigitsService, digit_png, digits_bundle, problem_kind
from tests.support.loopback_server import LoopbackServer, listen
from tests.unit.deployment.test_proxy import running_proxy

Session = Callable[["Service"], Awaitable[None]]


class Service:
    """A service of the digits and clients of its WebSocket route."""

    def __init__(self, app: Application, server: LoopbackServer) -> None:
        self.app = app
        self.server = server
        self.address = f"{server.host}:{server.port}"

    @asynccontextmanager
    async def connect(
        self, key: str | None = None, **options: Any
    ) -> AsyncIterator[ClientConnection]:
        """Connect, and read the greeting."""
        headers = {"X-API-Key": key} if key else {}
        options = {"additional_headers": headers, **options}
        async with connect(f"ws://{self.address}/ws", proxy=None, **options) as socket:
            assert json.loads(await socket.recv()) == {
                "window": self.app._bundle.serving.websocket.window
            }
            yield socket

    async def reject(self, **options: Any) -> tuple[int, dict[str, Any]]:
        """Return the status and the problem that a client gets in place of a connection."""
        with pytest.raises(InvalidStatus) as caught:
            async with self.connect(**options):
                pass
        response = caught.value.response
        assert response.headers["content-type"] == "application/problem+json"
        assert response.body is not None
        return response.status_code, json.loads(response.body)

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.get(f"http://{self.address}{path}")


def run(session: Session, keys: ApiKeyStore | None = None, **serving: Any) -> None:
    """Run a session with a service."""

    async def main() -> None:
        app = Application(digits_bundle(**serving), keys=keys)
        try:
            async with asyncio.timeout(60), listen(app) as server:
                await session(Service(app, server))
        finally:
            app.close()

    uvloop.run(main())


async def receive(socket: ClientConnection) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(await socket.recv())
    return answer


async def closed(socket: ClientConnection) -> tuple[int, str]:
    """Return the code and the reason with which the service ends a connection."""
    with pytest.raises(ConnectionClosed) as caught:
        await socket.recv()
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def test_each_image_is_answered_under_its_id() -> None:
    async def session(service: Service) -> None:
        async with service.connect(additional_headers={"X-Request-ID": "camera"}) as socket:
            await socket.send(digit_png())
            answer = await receive(socket)
            assert (answer["frame"], answer["request_id"]) == (1, "camera-1")
            assert answer["predictions"][0]["label"] == "0"
            assert (answer["model"], answer["version"]) == ("digits", "7")
            await socket.send('{"request_id": "named"}')
            await socket.send(b"no image")
            problem = await receive(socket)
            assert (problem["frame"], problem["request_id"]) == (2, "named")
            assert (problem["status"], problem["title"]) == (422, "image")
            await socket.send(digit_png())
            assert (await receive(socket))["request_id"] == "camera-3"
            metrics = (await service.get("/metrics")).text
        for status, count in (("101", 1), ("200", 2), ("422", 1)):
            name = f'cv_factory_requests_total{{route="/ws",status="{status}"}}'
            assert f"{name} {count}.0" in metrics
        assert "cv_factory_websocket_connections 1.0" in metrics

    run(session)


def hold_predictions(monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], asyncio.Event]:
    """Let predictions wait for an event; return the ids of those that have begun, and the event."""
    begun: list[str] = []
    may_end = asyncio.Event()
    predict = PredictionService.predict

    async def wait_and_predict(self: PredictionService, *args: Any, **options: Any) -> Any:
        begun.append(args[2].request_id)
        await may_end.wait()
        return await predict(self, *args, **options)

    monkeypatch.setattr(PredictionService, "predict", wait_and_predict)
    return begun, may_end


def test_no_more_images_than_the_window_are_predicted_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def session(service: Service) -> None:
        begun, may_end = hold_predictions(monkeypatch)
        async with service.connect() as socket:
            for _ in range(5):
                await socket.send(digit_png())
            while len(begun) < 2:
                await asyncio.sleep(0)
            await service.get("/healthz")
            assert len(begun) == 2
            may_end.set()
            answers = [await receive(socket) for _ in range(5)]
        assert sorted(answer["frame"] for answer in answers) == [1, 2, 3, 4, 5]

    run(session, websocket={"window": 2})


def test_clients_authenticate_before_the_connection_is_accepted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, "ann", ["predict"], None)
    configure_event_logging()

    async def session(service: Service) -> None:
        status, problem = await service.reject()
        assert (status, problem["title"]) == (401, "unauthorized")
        assert (await service.reject(key="cvf_stolen"))[0] == 401
        async with service.connect(key) as socket:
            await socket.send(digit_png())
            assert "predictions" in await receive(socket)
        async with service.connect(subprotocols=["cv-factory.v1", f"key.{key}"]) as browser:
            assert browser.subprotocol == "cv-factory.v1"
            await browser.send(digit_png())
            assert "predictions" in await receive(browser)

    run(session, keys=ApiKeyStore(file))
    output = capsys.readouterr().err
    lines = [json.loads(line) for line in output.splitlines() if line[0] == "{"]
    requests = [(r["method"], r["status"], r["key"]) for r in lines if r["event"] == "request"]
    refused, opened, predicted = ("GET", 401, None), ("GET", 101, "ann"), ("WEBSOCKET", 200, "ann")
    assert requests == [refused, refused, opened, predicted, opened, predicted]
    assert key not in output
    assert "cvf_stolen" not in output


def test_a_connection_ends_once_its_key_is_revoked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, "ann", ["predict"], None)
    monkeypatch.setattr("cv_factory.serving.auth.api_keys._RELOAD_INTERVAL_S", 0.0)
    add_key(file, "ben", ["predict"], None)

    async def session(service: Service) -> None:
        async with service.connect(key) as socket:
            revoke_key(file, "ann")
            await socket.send(digit_png())
            assert (await receive(socket))["status"] == 401
            assert await closed(socket) == (1008, "the API key is unknown or revoked")

    run(session, keys=ApiKeyStore(file))


def test_rates_hold_for_each_image_and_for_handshakes() -> None:
    async def images(service: Service) -> None:
        async with service.connect() as socket:
            await socket.send(digit_png())
            await receive(socket)
            await socket.send(digit_png())
            problem = await receive(socket)
        assert (problem["status"], problem["title"]) == (429, "too many requests")
        assert problem["retry_after"] > 1

    async def handshakes(service: Service) -> None:
        async with service.connect():
            assert (await service.reject())[0] == 429

    run(images, rate={"per_key": 0.01})
    run(handshakes, rate={"per_address": 0.01})


def test_web_pages_of_other_origins_connect_where_they_are_named() -> None:
    check_origin({"host": "a:3000"}, [])
    check_origin({"host": "a:3000", "origin": "http://a:3000"}, [])
    check_origin({"host": "a", "origin": "https://b"}, ["https://b"])
    check_origin({"host": "a", "origin": "null"}, ["*"])

    async def session(service: Service) -> None:
        async with service.connect(origin=f"http://{service.address}"):
            pass
        for origin in ("https://evil.example", f"http://{service.address}0", "null", "http://["):
            status, problem = await service.reject(origin=origin)
            assert (status, problem["title"]) == (403, "origin")

    run(session)


@pytest.mark.slow
def test_web_pages_connect_through_the_proxy(service: DigitsService, tmp_path: Path) -> None:
    port = int(service.url.rpartition(":")[2])
    subprotocols = ["cv-factory.v1", f"key.{service.key}"]

    async def predict(origin: str, address: str) -> str:
        page: dict[str, Any] = {"origin": origin, "subprotocols": subprotocols}
        url = f"ws://{address}/ws"
        async with connect(url, proxy=None, close_timeout=0.01, **page) as socket:
            await socket.recv()
            await socket.send(digit_png())
            return str((await receive(socket))["predictions"][0]["label"])

    with running_proxy(tmp_path) as proxy:
        proxy.route(Backend("digits", port, 1.0))
        address = f"127.0.0.1:{proxy.port}"
        assert asyncio.run(predict(f"http://{address}", address)) == "0"
        with pytest.raises(InvalidStatus) as refused:
            asyncio.run(predict("https://evil.example", address))
    assert b"name it in access.origins" in bytes(refused.value.response.body or b"")
    assert service.key not in service.output.read_text()


def test_there_are_no_more_connections_than_allowed() -> None:
    async def session(service: Service) -> None:
        async with service.connect():
            status, problem = await service.reject()
        assert (status, problem["title"]) == (503, "overloaded")
        while service.server.state.tasks:
            await asyncio.sleep(0)
        async with service.connect():
            pass

    run(session, websocket={"max_connections": 1})


def test_a_request_without_an_upgrade_is_told_the_protocol() -> None:
    async def session(service: Service) -> None:
        response = await service.get("/ws")
        assert (response.status_code, problem_kind(response)) == (426, "upgrade-required")
        assert response.headers["upgrade"] == "websocket"

    run(session)


def test_unusable_messages_end_the_connection(capsys: pytest.CaptureFixture[str]) -> None:
    configure_event_logging()

    async def session(service: Service) -> None:
        async with service.connect() as socket:
            await socket.send("predict this")
            code, reason = await closed(socket)
            assert (code, "request_id" in reason) == (1003, True)
        async with service.connect() as socket:
            await socket.send(b"x" * 2001)
            assert (await closed(socket))[0] == 1009
        async with service.connect() as socket:
            # The head of a frame of 256 bytes with the mask 0, and 4 of them.
            socket.transport.write(b"\x82\xfe\x01\x00" + bytes(4) + b"\x89PNG")
            assert await closed(socket) == (1008, "a message took longer than 0.05 s")

    run(session, limits={"max_body_bytes": 2000, "body_seconds": 0.05})
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line[0] == "{"]
    problems = [(line["status"], line["problem"]) for line in lines if line["problem"]]
    assert problems == [(413, "body-too-large"), (408, "too-slow")]


def test_an_idle_connection_ends() -> None:
    async def session(service: Service) -> None:
        async with service.connect() as socket:
            assert await closed(socket) == (1001, "no image for 0.05 s")

    run(session, websocket={"idle_seconds": 0.05})


@pytest.mark.parametrize(
    "text",
    ["", "[1]", "{}", '{"request_id": 1}', '{"request_id": "a b"}', '{"request_id": "a", "b": 1}',
     '{"request_id": ""}', "[" * 150, '{"request_id": "' + 65 * "a" + '"}', 300 * " "],
)  # fmt: skip
def test_a_text_message_must_be_an_id(text: str) -> None:
    assert parse_request_id(text) is None


def test_what_is_being_predicted_is_answered_before_a_service_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def session(service: Service) -> None:
        begun, may_end = hold_predictions(monkeypatch)
        async with service.connect() as socket:
            for _ in range(3):
                await socket.send(digit_png())
            while len(begun) < 3:
                await asyncio.sleep(0)
            service.server.shutdown()
            may_end.set()
            answers = [await receive(socket) for _ in range(3)]
            assert sorted(answer["frame"] for answer in answers) == [1, 2, 3]
            assert await closed(socket) == (1012, "the service stops; connect again")

    run(session)


def test_a_fault_is_counted_and_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("the graph is broken")

    async def session(service: Service) -> None:
        async with service.connect(additional_headers={"X-Request-ID": "camera"}) as socket:
            monkeypatch.setattr(PredictionService, "predict", fail)
            await socket.send(digit_png())
            code, reason = await closed(socket)
        assert (code, "camera" in reason, "broken" in reason) == (1011, True, False)
        text = (await service.get("/metrics")).text
        assert 'cv_factory_requests_total{route="/ws",status="500"} 1.0' in text
        assert 'cv_factory_problems_total{kind="internal"} 1.0' in text

    run(session)
