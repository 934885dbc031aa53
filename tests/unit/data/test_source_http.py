"""A listing over HTTP, from a real server on this machine that behaves well or badly."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cv_factory.config.data import DataConfig, FetchConfig
from cv_factory.data.ingest import ingest
from cv_factory.data.sources import open_source
from cv_factory.data.storage.fetch import Fetcher, is_public, retry_after
from cv_factory.errors import ConfigError, DataError, ImageError
from tests.support.images import encode, write_class_folders

Answer = tuple[int, dict[str, str], bytes]
PNG = encode(Image.new("RGB", (8, 8), "red"))


class Site:
    """Answers by path; counts requests; remembers headers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: dict[str, Callable[[int], Answer]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []

    def put(self, path: str, content: bytes, kind: str = "image/png", **headers: str) -> None:
        self.answers[path] = lambda _: (200, {"Content-Type": kind, **headers}, content)

    def count(self, path: str) -> int:
        return sum(path == requested for requested, _ in self.requests)


@pytest.fixture
def site() -> Iterator[Site]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            served.requests.append((self.path, dict(self.headers)))
            found = served.answers.get(self.path)
            status, headers, body = found(served.count(self.path)) if found else (404, {}, b"")
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            if "Content-Length" in headers:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served = Site(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


def listing(site: Site, path: str = "/list", fetch: Any = None, **settings: object) -> DataConfig:
    return DataConfig.model_validate(
        {
            "source": "http",
            "path": site.url + path,
            "fetch": {
                "allow_private_addresses": True,
                "backoff_seconds": 0.01,
                **(fetch or {}),
            },
            **settings,
        }
    )


def fetcher(waits: list[float] | None = None, **settings: object) -> Fetcher:
    config = FetchConfig.model_validate({"allow_private_addresses": True, **settings})
    return Fetcher(config, sleep=(waits if waits is not None else []).append)


def publish(site: Site, root: Path, per_class: int = 5) -> list[dict[str, str]]:
    write_class_folders(root, per_class=per_class)
    items = []
    for file in sorted(root.rglob("*.png")):
        name = file.relative_to(root).as_posix()
        site.put(f"/images/{name}", file.read_bytes())
        items.append({"image_url": f"images/{name}", "label": file.parent.name, "id": name})
    return items


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize("paging", ["next_key", "link", "page_parameter", "csv"])
def test_a_listing_gives_the_dataset_that_the_folder_gives(
    site: Site, tmp_path: Path, paging: str
) -> None:
    items = publish(site, tmp_path)
    http: dict[str, object] = {
        "items_key": "data.images",
        "columns": {"image": "image_url", "id": "id"},
    }
    first, second = items[:6], items[6:]
    if paging == "next_key":
        http["next_key"] = "next"
        site.put(
            "/list", as_json({"data": {"images": first}, "next": "/list2"}), "application/json"
        )
        site.put("/list2", as_json({"data": {"images": second}, "next": None}), "application/json")
    elif paging == "link":
        link = {"Link": '</a>; rel="prev", </list2>; rel="next"'}
        site.put("/list", as_json({"data": {"images": first}}), "application/json", **link)
        site.put("/list2", as_json({"data": {"images": second}}), "application/json")
    elif paging == "page_parameter":
        http["page_parameter"] = "p"
        for n, page in enumerate((first, second, []), 1):
            site.put(f"/list?p={n}", as_json({"data": {"images": page}}), "application/json")
    else:
        rows = "".join(f"{i['image_url']},{i['label']},{i['id']}\n" for i in items)
        site.put("/list", f"image_url,label,id\n{rows}".encode(), "text/csv; charset=utf-8")
    folder = DataConfig.model_validate({"source": "folder", "path": str(tmp_path)})
    dataset = ingest(listing(site, http=http))
    assert dataset.fingerprint == ingest(folder).fingerprint
    assert dataset.manifest["source"][0] == f"{site.url}/images/disc/000.png"


def test_a_name_with_any_sign_is_asked_for_as_it_is_shown(site: Site) -> None:
    # By name: the path that is asked for. A name that no URL can be is a file's, all signs of it.
    paths = {
        "cat # 1.png": "/set/cat%20%23%201.png",
        "a#2.png": "/set/a%232.png",
        "cat 50% 3.png": "/set/cat%2050%25%203.png",
        "a%20b 4.png": "/set/a%2520b%204.png",
        "a%20b.png": "/set/a%20b.png",
        "c + 5.png": "/set/c%20%2B%205.png",
        "\u00e9.png": "/set/%C3%A9.png",
        "[1].png": "/set/%5B1%5D.png",
        "d ?x=1 6.png": "/set/d%20%3Fx%3D1%206.png",
        "e.png?x=1": "/set/e.png?x=1",
        "f?name=cat 1": "/set/f?name=cat%201",
        "cam-2024-05-01T12:30:07.png": "/set/cam-2024-05-01T12:30:07.png",
        "sub\\7.png": "/set/sub/7.png",
        f"{site.url}/50%.png": "/50%25.png",
    }
    for path in paths.values():
        site.put(path, PNG)
    items = [{"image_url": name, "label": "ab"[n % 2]} for n, name in enumerate(paths)]
    site.put("/set/list", as_json(items), "application/json")
    dataset = ingest(listing(site, "/set/list"))
    shown = dict(zip(dataset.manifest["id"], dataset.manifest["source"], strict=True))
    assert shown == {name: site.url + path for name, path in paths.items()}


def test_a_listing_may_name_a_url_that_is_none(site: Site) -> None:
    urls = ["/0.png", "/1.png", "http://[::1/2.png", "data:image/png;base64,AA", "http://a:b/3.png"]
    items = [{"image_url": url, "label": "ab"[n % 2]} for n, url in enumerate(urls)]
    for n in range(2):
        site.put(f"/{n}.png", PNG)
    site.put("/list", as_json(items), "application/json")
    dataset = ingest(listing(site, max_unreadable_share=0.9))
    assert {u.id: u.reason for u in dataset.unreadable}.keys() == set(urls[2:])


def test_a_csv_is_read_in_the_encoding_that_the_server_names(site: Site) -> None:
    site.put("/0.png", PNG)
    table = "image_url,label\n/0.png,caf\u00e9\n".encode("cp1252")
    site.put("/list", table, "text/csv; charset=windows-1252")
    assert ingest(listing(site)).class_names == ("caf\u00e9",)
    for charset in ("nonsense", "hex"):
        site.put("/list", table, f"text/csv; charset={charset}")
        with pytest.raises(DataError, match=f"in an unknown encoding, '{charset}'"):
            open_source(listing(site))
    site.put("/list", b"image_url;label\n /0.png ;cat\n", "text/csv")
    assert list(ingest(listing(site)).manifest["id"]) == ["/0.png"]
    site.put("/list", table, "text/csv")
    with pytest.raises(DataError, match=r"line 2, is not UTF-8; .*text/csv; charset=cp1252"):
        open_source(listing(site))


def test_labels_that_are_objects_are_refused(site: Site) -> None:
    site.put("/list", as_json([{"image_url": "/0.png", "label": {"name": "cat"}}]))
    with pytest.raises(DataError, match=r"row 1: the column 'label' holds .* \(dict\), neither"):
        open_source(listing(site))


def test_keys_in_addresses_are_neither_stored_nor_shown(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="the value of 'api_key' would be stored with every run"):
        listing(site, "/list?api_key=s3cret")
    monkeypatch.setenv("IMAGES_KEY", "s3cret")
    items = [{"image_url": f"/{n}.png?X-Amz-Signature=abc&v={n}", "label": "ab"[n]}
             for n in range(2)]  # fmt: skip
    site.put("/list?api_key=s3cret&p=1", as_json(items), "application/json")
    for n in range(2):
        site.put(f"/{n}.png?X-Amz-Signature=abc&v={n}", PNG)
    dataset = ingest(listing(site, "/list?api_key={env:IMAGES_KEY}&p=1"))
    assert dataset.source == f"listing {site.url}/list"
    assert list(dataset.manifest["id"]) == [f"/{n}.png?X-Amz-Signature=***&v={n}" for n in range(2)]
    assert dataset.manifest["source"][0] == f"{site.url}/0.png?X-Amz-Signature=***&v=0"
    with pytest.raises(DataError, match="HTTP status 404") as caught:
        open_source(listing(site, "/nothing?api_key={env:IMAGES_KEY}"))
    assert "s3cret" not in str(caught.value)
    table = f"image_path,label\n0.png,a\n{site.url}/1.png?X-Amz-Signature=abc&v=1,b\n"
    site.put("/t.csv?sig=s3cret", table.encode())
    site.put("/0.png", PNG)
    dataset = ingest(listing(site, "/t.csv?sig={env:IMAGES_KEY}", source="manifest"))
    assert dataset.source == f"manifest {site.url}/t.csv"
    assert list(dataset.manifest["source"]) == [
        f"{site.url}/0.png", f"{site.url}/1.png?X-Amz-Signature=***&v=1"
    ]  # fmt: skip
    site.put("/s3cret/list", as_json([{"image_url": f"{n}.png", "label": n} for n in range(2)]))
    site.put("/s3cret/t.csv", b"image_path,label\n0.png,a\n1.png,b\n")
    for n in range(2):
        site.put(f"/s3cret/{n}.png", PNG)
    for source, path in (("manifest", "t.csv"), ("http", "list")):
        dataset = ingest(listing(site, f"/{{env:IMAGES_KEY}}/{path}", source=source))
        assert len(dataset) == 2
        assert "s3cret" not in dataset.manifest.to_csv()


def test_an_image_that_cannot_be_fetched_is_left_out_with_its_reason(site: Site) -> None:
    items = [{"image_url": f"/{n}.png", "label": "ab"[n % 2]} for n in range(5)]
    for n in range(2):
        site.put(f"/{n}.png", PNG)
    site.answers["/2.png"] = lambda _: (503, {}, b"")
    site.put("/3.png", PNG + b"\0" * 2000)
    site.put("/list", as_json(items), "application/json")
    size: dict[str, Any] = {"height": 8, "width": 8, "channels": 3}
    dataset = ingest(listing(site, max_unreadable_share=0.9, max_bytes=1000, **size))
    assert {u.id: u.reason for u in dataset.unreadable} == {
        "/2.png": "HTTP status 503, after 4 attempts",
        "/3.png": f"{len(PNG) + 2000} bytes are more than the 1000 allowed",
        "/4.png": "HTTP status 404",
    }
    assert site.count("/2.png") == 4
    assert site.count("/4.png") == 1


def test_what_may_pass_is_tried_again_after_growing_waits(site: Site) -> None:
    site.answers["/x"] = lambda n: (200, {}, b"ok") if n == 4 else (500, {}, b"")
    waits: list[float] = []
    assert fetcher(waits, backoff_seconds=1.0).get(f"{site.url}/x", 10).content == b"ok"
    assert [round(w / 2**n, 3) for n, w in enumerate(waits)] == pytest.approx([1, 1, 1], abs=0.5)


def test_a_server_is_given_the_time_that_it_asks_for_within_limits(site: Site) -> None:
    waits: list[float] = []
    site.answers["/x"] = lambda n: (429, {"Retry-After": "7"}, b"") if n == 1 else (200, {}, b"ok")
    fetcher(waits).get(f"{site.url}/x", 10)
    assert waits == [7.0]
    site.answers["/y"] = lambda _: (429, {"Retry-After": "3600"}, b"")
    with pytest.raises(ImageError, match="asks to wait 3600 s, more than the 60 s allowed"):
        fetcher(waits).get(f"{site.url}/y", 10)
    assert waits == [7.0]


def test_a_date_in_retry_after_is_understood() -> None:
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    assert retry_after({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}) > 1e9
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


def test_a_body_that_breaks_off_is_fetched_again(site: Site) -> None:
    site.answers["/x"] = lambda n: (
        200,
        {"Content-Length": "9"},
        b"whole" if n == 1 else b"whole one",
    )
    assert fetcher().get(f"{site.url}/x", 10).content == b"whole one"
    assert site.count("/x") == 2


def test_a_server_that_does_not_answer_is_given_up(site: Site) -> None:
    given_up = threading.Event()

    def silent(_: int) -> Answer:
        given_up.wait(30)
        return 200, {}, b"late"

    site.answers["/x"] = silent
    with pytest.raises(ImageError, match="after 1 attempts"):
        fetcher(timeout_seconds=0.1, retries=0).get(f"{site.url}/x", 10)
    given_up.set()
    with pytest.raises(ImageError, match="attempts"):
        fetcher(retries=1).get("http://127.0.0.1:9/x", 10)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
     "::1", "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
     "224.0.0.1", "255.255.255.255", "::"],
)  # fmt: skip
def test_addresses_inside_are_not_public(address: str) -> None:
    assert not is_public(address)


def test_addresses_outside_are_public() -> None:
    assert all(map(is_public, ["93.184.216.34", "2606:2800:220:1::1", "::ffff:8.8.8.8"]))


def test_a_private_address_is_refused_unless_allowed(site: Site) -> None:
    site.put("/list", as_json([{"image_url": "/0.png", "label": "a"}]), "application/json")
    with pytest.raises(DataError, match=r"private address 127\.0\.0\.1"):
        open_source(listing(site, fetch={"allow_private_addresses": False}))
    with pytest.raises(ImageError, match=r"localhost is at the private address"):
        fetcher(allow_private_addresses=False).get(site.url.replace("127.0.0.1", "localhost"), 10)
    assert site.requests == []


def test_every_redirect_is_checked_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    # As seen from outside: one name is public (and leads to the test server), the address is not.
    import cv_factory.data.storage.fetch as module

    real, port = socket.getaddrinfo, site.url.rpartition(":")[2]
    asked: list[str] = []

    def resolve(host: str, *arguments: Any, **options: Any) -> object:
        asked.append(host)
        return real("127.0.0.1" if host == "public.test" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(
        module, "is_public", lambda a: asked[-1] == "public.test" and a == "127.0.0.1"
    )
    site.answers["/x"] = lambda _: (302, {"Location": f"http://169.254.169.254:{port}/secret"}, b"")
    with pytest.raises(ImageError, match=r"private address 169\.254\.169\.254"):
        fetcher(allow_private_addresses=False).get(f"http://public.test:{port}/x", 10)
    assert site.count("/x") == 1


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("/x", "more than 5 redirects"),
        ("file:///etc/passwd", "no http"),
        ("gopher://a/", "no http"),
    ],
)
def test_a_redirect_that_leads_nowhere_good_is_refused(
    site: Site, location: str, reason: str
) -> None:
    site.answers["/x"] = lambda _: (302, {"Location": location}, b"")
    with pytest.raises(ImageError, match=reason):
        fetcher().get(f"{site.url}/x", 10)


def test_secrets_go_to_the_listing_host_only(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGES_TOKEN", "s3cret")
    elsewhere = site.url.replace("127.0.0.1", "localhost")
    items = [{"image_url": f"{host}/{n}.png", "label": "ab"[n]} for n, host in
             enumerate((site.url, elsewhere))]  # fmt: skip
    site.put("/list", as_json(items), "application/json")
    for n in range(2):
        site.put(f"/{n}.png", PNG)
    ingest(listing(site, fetch={"headers": {"Authorization": "Bearer {env:IMAGES_TOKEN}"}}))
    sent = {path: headers.get("Authorization") for path, headers in site.requests}
    assert sent == {"/list": "Bearer s3cret", "/0.png": "Bearer s3cret", "/1.png": None}
    monkeypatch.delenv("IMAGES_TOKEN")
    with pytest.raises(ConfigError, match="IMAGES_TOKEN, which is not set"):
        open_source(
            listing(site, fetch={"headers": {"Authorization": "Bearer {env:IMAGES_TOKEN}"}})
        )


@pytest.mark.parametrize(
    ("body", "http", "message"),
    [
        (b"<html>", {}, "is not JSON"),
        (b'{"a": 1, "b": 2}', {}, r"no list of objects at its top; it has the keys a, b"),
        (b"[]", {}, "lists no images"),
        (b'[{"url": "x"}]', {}, r"no column 'image_url' \(set by data.http.columns.image\)"),
        (b'{"i": [{"image_url": "x", "label": "a"}], "n": "/list"}',
         {"items_key": "i", "next_key": "n"}, "comes back to"),
    ],
)  # fmt: skip
def test_a_listing_that_is_wrong_is_named_with_what_is_wrong(
    site: Site, body: bytes, http: dict[str, str], message: str
) -> None:
    site.put("/list", body, "application/json")
    with pytest.raises(DataError, match=message):
        open_source(listing(site, http=http))


def test_a_manifest_and_its_images_may_lie_on_a_web_server(site: Site, tmp_path: Path) -> None:
    items = publish(site, tmp_path, per_class=3)
    rows = "".join(f"{i['image_url']},{i['label']}\n" for i in items)
    rows += f"../x.png,disc\n{site.url}/images/disc/000.png?again ,disc\n"
    site.put("/set/../t.csv", b"")
    site.put("/t.csv", f"image_path,label\n{rows}".encode(), "text/csv")
    site.put("/images/disc/000.png?again", PNG)
    config = DataConfig.model_validate(
        {
            "source": "manifest",
            "path": f"{site.url}/t.csv",
            "fetch": {"allow_private_addresses": True},
            "max_unreadable_share": 0.5,
        }
    )
    dataset = ingest(config)
    assert len(dataset) == 7
    assert [u.id for u in dataset.unreadable] == ["../x.png"]
