"""Configuration of Envoy for a model's proxy, as pure functions of its routes.

Envoy reads files: they are written beside and renamed into place, and take effect without a
restart. It knows services by their addresses; it is told nothing of models and keys.
See https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/api.
"""

import json
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from cv_factory.deployment.local.routes import Backend, Routes
from cv_factory.deployment.traffic import Sticky
from cv_factory.processes.ports import LOOPBACK

#: Files and sockets in the proxy's folder, where Envoy runs: the length of a socket's path is
#: limited, so that they are given to Envoy without the folder.
BOOTSTRAP, ADMIN_SOCKET, METRICS_SOCKET = "bootstrap.json", "admin.sock", "metrics.sock"
LISTENERS, CLUSTERS, ROUTE_TABLE, CERTIFICATE = "lds.json", "cds.json", "rds.json", "sds.json"
ACCESS_LOG, ENVOY_LOG = "access.log", "envoy.log"
HTTP, GRPC, METRICS = "http", "grpc", "metrics"

Json = dict[str, Any]

#: Raised where a proxy of an earlier release that runs has to be replaced.
_REVISION = 1

_MAX_HEAD_KIB = 64
_HEAD_TIMEOUT, _IDLE_TIMEOUT, _STREAM_IDLE_TIMEOUT = "10s", "75s", "300s"
_CONNECT_TIMEOUT = "5s"
#: For so long the rest of a request is read that was answered before its end. Clients of WebSockets
#: wait for it, too, since they let the server close the connection.
_LINGER_TIMEOUT = "1s"
#: Beyond the file descriptors that a process may have, so that Envoy does not warn of no limit.
_MAX_CONNECTIONS = 2**20
#: Services close a connection that was idle for 5 s: one that could be closing is not used again.
_REUSE_TIMEOUT = "3s"
#: The services limit themselves, and say so in words.
_NO_LIMIT = 2**31
_LIMITS = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
#: Scrapes at once: a thread each in the supervisor.
_MAX_SCRAPES = 4
#: Copies at once and seconds of each, beyond which a shadow that hangs is sent no more.
_MAX_COPIES, _COPY_TIMEOUT = 64, "60s"
#: Weights are whole numbers of this sum.
_TOTAL_WEIGHT = 1_000_000
#: Points of the hash ring, built at each start: shares of clients are exact to some 0.4 points.
_RING_SIZE = 2**15
#: The address of a client is the last value of this header, and services believe no other. Envoy's
#: own way puts an address of this machine in the place of a loopback address.
_CLIENT_ADDRESS = {
    "header": {
        "key": "X-Forwarded-For",
        "value": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
    },
    "append_action": "APPEND_IF_EXISTS_OR_ADD",
}
_TYPE_PREFIX = "type.googleapis.com/envoy."
_HTTP_OPTIONS = "extensions.upstreams.http.v3.HttpProtocolOptions"


def eds_file(cluster: str) -> str:
    """Return the name of the file with the endpoints of a cluster."""
    return f"eds-{cluster}.json"


def bootstrap() -> str:
    """Return the file that Envoy is started with: where the others are, and its admin socket."""
    content = {
        "node": {"id": "proxy", "cluster": "cv_factory", "metadata": {"revision": _REVISION}},
        "admin": {"address": {"pipe": {"path": ADMIN_SOCKET, "mode": 0o600}}},
        "dynamic_resources": {
            "lds_config": _file_source(LISTENERS),
            "cds_config": _file_source(CLUSTERS),
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": _typed(
                        "extensions.resource_monitors.downstream_connections.v3"
                        ".DownstreamConnectionsConfig",
                        max_active_downstream_connections=_MAX_CONNECTIONS,
                    ),
                }
            ]
        },
    }
    return json.dumps(content)


def dynamic_files(
    routes: Routes, version: str, address: str, port: int, draining: Collection[Backend] = ()
) -> dict[str, str]:
    """Return the files that Envoy watches, by name.

    Args:
        routes: The services that requests and copies go to.
        version: Reported by Envoy once it has put the files in force.
        address: IP address that clients are accepted on.
        port: TCP port that clients are accepted on.
        draining: Services that finish what they have, or that are to be checked before they get
            anything.
    """
    return {
        eds_file(cluster): _discovery(version, [endpoints(routes, cluster, draining)])
        for cluster in (HTTP, GRPC)
    } | {
        CLUSTERS: _discovery(version, clusters(routes)),
        ROUTE_TABLE: _discovery(version, [route_table(routes)]),
        LISTENERS: _discovery(version, [listener(address, port, is_tls=routes.tls is not None)]),
    }


def endpoints(routes: Routes, cluster: str, draining: Collection[Backend] = ()) -> Json:
    """Return the services of a cluster with their weights; those that drain get nothing new."""
    given = [backend for backend in routes.backends if backend.weight > 0]
    total = sum(backend.weight for backend in given)
    statuses = [(b, b.weight / total, "UNKNOWN") for b in given]
    statuses += [(b, 0.0, "DRAINING") for b in draining]
    return _typed(
        "config.endpoint.v3.ClusterLoadAssignment",
        cluster_name=cluster,
        endpoints=[
            {
                "lb_endpoints": [
                    _endpoint(backend, port, share, status)
                    for backend, share, status in statuses
                    if (port := _port(backend, cluster)) is not None
                ]
            }
        ],
    )


def _endpoint(backend: Backend, port: int, share: float, status: str) -> Json:
    return {
        "endpoint": {
            "address": _address(LOOPBACK, port),
            "health_check_config": {"port_value": backend.port},
        },
        "health_status": status,
        "load_balancing_weight": max(1, round(share * _TOTAL_WEIGHT)),
        # By its name, not its port: it keeps its clients when it is started again.
        "metadata": _endpoint_metadata(hash_key=backend.name, version=backend.version),
    }


def _endpoint_metadata(**fields: str) -> Json:
    return {"filter_metadata": {"envoy.lb": fields}}


def clusters(routes: Routes) -> list[Json]:
    """Return the clusters: the services by protocol, each shadow's, and the model's metrics."""
    services = [_service_cluster(cluster, routes.sticky) for cluster in (HTTP, GRPC)]
    shadows = [
        _shadow_cluster(_shadow_name(backend, cluster), port, cluster)
        for cluster in (HTTP, GRPC)
        for backend, port in _shadows(routes, cluster)
    ]
    metrics = {
        **_cluster(METRICS, HTTP, max_connections=_MAX_SCRAPES),
        **_static_address(METRICS, {"pipe": {"path": METRICS_SOCKET}}),
    }
    return [*services, *shadows, metrics]


def _service_cluster(cluster: str, sticky: Sticky | None) -> Json:
    ring = {"minimum_ring_size": _RING_SIZE, "maximum_ring_size": 2 * _RING_SIZE}
    policy = {"lb_policy": "RING_HASH", "ring_hash_lb_config": ring}
    return {
        **_cluster(cluster, cluster),
        **(policy if sticky else {"lb_policy": "ROUND_ROBIN"}),
        "lb_subset_config": {
            "fallback_policy": "ANY_ENDPOINT",
            "subset_selectors": [{"keys": ["version"]}],
        },
        "type": "EDS",
        "eds_cluster_config": {"eds_config": _file_source(eds_file(cluster))},
        # Envoy would answer with services that fail their checks, and go on with removed ones.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "ignore_health_on_host_removal": True,
        "health_checks": [
            {
                "timeout": "5s",
                "interval": "1s",
                "no_traffic_interval": "1s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "http_health_check": {"path": "/readyz"},
            }
        ],
    }


def _shadow_cluster(name: str, port: int, protocol: str) -> Json:
    # Envoy appends an address of this machine to the X-Forwarded-For of a copy.
    address = {"key": "X-Forwarded-For", "value": "%REQ(X-ENVOY-EXTERNAL-ADDRESS)%"}
    mutation = {"append": {"header": address, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}
    filters = [
        {
            "name": "envoy.filters.http.header_mutation",
            "typed_config": _typed(
                "extensions.filters.http.header_mutation.v3.HeaderMutation",
                mutations={"request_mutations": [mutation]},
            ),
        },
        {
            "name": "envoy.filters.http.upstream_codec",
            "typed_config": _typed("extensions.filters.http.upstream_codec.v3.UpstreamCodec"),
        },
    ]
    options = {"max_stream_duration": _COPY_TIMEOUT}
    return {
        **_cluster(name, protocol, filters, options, max_requests=_MAX_COPIES),
        **_static_address(name, _address(LOOPBACK, port)),
        # With a limit, a client's body would wait for a shadow that does not read its copy.
        "per_connection_buffer_limit_bytes": _NO_LIMIT,
    }


def _static_address(name: str, address: Json) -> Json:
    lb_endpoints = [{"endpoint": {"address": address}}]
    return {
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": lb_endpoints}]},
    }


def _cluster(
    name: str,
    protocol: str,
    filters: Sequence[Json] = (),
    common_options: Json | None = None,
    **limits: int,
) -> Json:
    protocol_options: Json = {"http_protocol_options": {}}
    if protocol == GRPC:
        # The workers of a service share its port, and each connection is of one of them.
        protocol_options = {"http2_protocol_options": {"max_concurrent_streams": 4}}
    options = _typed(
        _HTTP_OPTIONS,
        common_http_protocol_options={"idle_timeout": _REUSE_TIMEOUT, **(common_options or {})},
        explicit_http_config=protocol_options,
        http_filters=list(filters),
    )
    return {
        "@type": f"{_TYPE_PREFIX}config.cluster.v3.Cluster",
        "name": name,
        "connect_timeout": _CONNECT_TIMEOUT,
        "circuit_breakers": {"thresholds": [dict.fromkeys(_LIMITS, _NO_LIMIT) | limits]},
        "typed_extension_protocol_options": {f"envoy.{_HTTP_OPTIONS}": options},
    }


def _shadows(routes: Routes, cluster: str) -> list[tuple[Backend, int]]:
    """Return the services that are sent copies of a cluster's requests, with their ports."""
    ports = [(b, _port(b, cluster)) for b in routes.backends if b.mirror_share > 0]
    return [(backend, port) for backend, port in ports if port is not None]


def _shadow_name(backend: Backend, cluster: str) -> str:
    return f"shadow-{cluster}-{backend.name}"


def _port(backend: Backend, cluster: str) -> int | None:
    return backend.port if cluster == HTTP else backend.grpc_port


def route_table(routes: Routes) -> Json:
    """Return which requests go to which cluster, who is sent copies, and what keeps a client."""
    is_get, is_post = (
        [{"name": ":method", "string_match": {"exact": method}}] for method in ("GET", "POST")
    )
    table = [
        {"match": {"path": "/metrics", "headers": is_get}, "route": {"cluster": METRICS}},
        {
            "match": {"prefix": "/", "grpc": {}},
            "route": {**_route(GRPC, routes), "idle_timeout": "0s", **_mirrors(GRPC, routes)},
        },
        *_version_routes(routes),
        {
            "match": {"prefix": "/", "headers": is_post},
            "route": {**_route(HTTP, routes), **_mirrors(HTTP, routes)},
        },
        {"match": {"prefix": "/"}, "route": _route(HTTP, routes)},
    ]
    return _typed(
        "config.route.v3.RouteConfiguration",
        name="routes",
        request_headers_to_add=[_CLIENT_ADDRESS],
        virtual_hosts=[{"name": "model", "domains": ["*"], "routes": table}],
    )


def _version_routes(routes: Routes) -> Iterable[Json]:
    """Yield the routes of requests that name their version (Open Inference Protocol over REST)."""
    versions = {b.version for b in routes.backends if b.weight > 0 and b.version}
    if len(versions) == 1:
        return
    for version in sorted(versions):
        pattern = f"/v2/models/[^/]+/versions/{re.escape(version)}(/.*)?"
        subset = {"metadata_match": _endpoint_metadata(version=version)}
        yield {
            "match": {"safe_regex": {"regex": pattern}},
            "route": {**_route(HTTP, routes), **subset},
        }


def _route(cluster: str, routes: Routes) -> Json:
    return {
        "cluster": cluster,
        "timeout": "0s",  # the services have deadlines
        "hash_policy": list(_hash_policies(routes.sticky)),
        "retry_policy": {
            # What was never sent. A reset before any answer may come after the request was read.
            "retry_on": "connect-failure,refused-stream,reset-before-request",
            "num_retries": 2,
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": _typed(
                        "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                    ),
                }
            ],
            # So often the one that did not accept may be next, where the other's weight is small.
            "host_selection_retry_max_attempts": 200,
        },
    }


def _mirrors(cluster: str, routes: Routes) -> Json:
    """Return the clusters that are sent copies."""
    return {
        "request_mirror_policies": [
            {
                "cluster": _shadow_name(backend, cluster),
                "disable_shadow_host_suffix_append": True,
                "runtime_fraction": {
                    "default_value": {
                        "numerator": round(backend.mirror_share * 1_000_000),
                        "denominator": "MILLION",
                    }
                },
            }
            for backend, _ in _shadows(routes, cluster)
        ]
    }


def _hash_policies(sticky: Sticky | None) -> Iterable[Json]:
    """Yield what identifies a client, the first that a request has."""
    if sticky is None:
        return
    if sticky.by == "api_key":
        yield {"header": {"header_name": "x-api-key"}, "terminal": True}
        bearer = {"pattern": {"regex": "^[Bb]earer +"}, "substitution": ""}
        yield {"header": {"header_name": "authorization", "regex_rewrite": bearer}}
    elif sticky.by == "header":
        yield {"header": {"header_name": sticky.name}}
    else:
        yield {"cookie": {"name": sticky.name}}


def listener(address: str, port: int, *, is_tls: bool) -> Json:
    """Return the listener for clients: HTTP/1.1, HTTP/2 and gRPC on one port."""
    chain: Json = {
        "filters": [
            {
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": _connection_manager(),
            }
        ]
    }
    if is_tls:
        certificate = {"name": "certificate", "sds_config": _file_source(CERTIFICATE)}
        chain["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": _typed(
                "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                common_tls_context={
                    "alpn_protocols": ["h2", "http/1.1"],
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                    "tls_certificate_sds_secret_configs": [certificate],
                },
            ),
        }
        chain["transport_socket_connect_timeout"] = _HEAD_TIMEOUT
    return _typed(
        "config.listener.v3.Listener",
        name="clients",
        address=_address(address, port),
        filter_chains=[chain],
    )


def secret(certificate: str, key: str) -> str:
    """Return the file with a certificate chain and its private key, both PEM text."""
    tls = {
        "certificate_chain": {"inline_string": certificate},
        "private_key": {"inline_string": key},
    }
    kind = "extensions.transport_sockets.tls.v3.Secret"
    return _discovery("", [_typed(kind, name="certificate", tls_certificate=tls)])


def _connection_manager() -> Json:
    return _typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="clients",
        codec_type="AUTO",
        rds={"route_config_name": "routes", "config_source": _file_source(ROUTE_TABLE)},
        http_filters=[
            {
                "name": "envoy.filters.http.router",
                "typed_config": _typed(
                    "extensions.filters.http.router.v3.Router", suppress_envoy_headers=True
                ),
            }
        ],
        upgrade_configs=[{"upgrade_type": "websocket"}],
        http_protocol_options={
            "accept_http_10": True,
            "default_host_for_http_10": "localhost",
            "ignore_http_11_upgrade": [{"prefix": "h2c"}, {"prefix": "TLS/"}, {"prefix": "HTTP/"}],
        },
        http2_protocol_options={"max_concurrent_streams": 1000},
        common_http_protocol_options={"idle_timeout": _IDLE_TIMEOUT},
        request_headers_timeout=_HEAD_TIMEOUT,
        stream_idle_timeout=_STREAM_IDLE_TIMEOUT,
        max_request_headers_kb=_MAX_HEAD_KIB,
        use_remote_address=True,
        skip_xff_append=True,  # see _CLIENT_ADDRESS
        delayed_close_timeout=_LINGER_TIMEOUT,
        proxy_100_continue=True,  # the services refuse a body that is too large before it is sent
        # Copies for a shadow have the same id, so one is made where the client sends none.
        preserve_external_request_id=True,
        server_header_transformation="PASS_THROUGH",
        local_reply_config=_local_replies(),
        access_log=[_access_log()],
    )


def _local_replies() -> Json:
    """Return what is answered in place of a service, as problem details (RFC 9457)."""
    ended = _problem("Bad Gateway", 502, "The service ended while it worked on this request.")
    missing = _problem("Service Unavailable", 503, "No service is running behind this address.")
    return {
        "mappers": [
            _reply(["UC", "UR", "UPE"], 502, ended),
            _reply(["UF", "UH", "NC"], 503, missing),
        ],
        "body_format": _body(_problem("%RESPONSE_CODE_DETAILS%", 0, "%LOCAL_REPLY_BODY%")),
    }


def _problem(title: str, status: int, detail: str) -> str:
    problem = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return json.dumps(problem)


def _reply(flags: list[str], status: int, problem: str) -> Json:
    retry = {"header": {"key": "Retry-After", "value": "1"}}
    return {
        "filter": {"response_flag_filter": {"flags": flags}},
        "status_code": status,
        "headers_to_add": [retry],
        "body_format_override": _body(problem),
    }


def _body(text: str) -> Json:
    source = {"inline_string": text.replace('"status": 0', '"status": %RESPONSE_CODE%')}
    return {"text_format_source": source, "content_type": "application/problem+json"}


def _access_log() -> Json:
    fields = {
        "time": "%START_TIME%",
        "method": "%REQ(:METHOD)%",
        # Without the query, which may hold a secret.
        "path": "%PATH(NQ):256%",
        "protocol": "%PROTOCOL%",
        "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "duration_ms": "%DURATION%",
        "bytes_received": "%BYTES_RECEIVED%",
        "bytes_sent": "%BYTES_SENT%",
        "address": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "service": "%UPSTREAM_HOST%",
        "request_id": "%REQ(X-REQUEST-ID):128%",
    }
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": _typed(
            "extensions.access_loggers.file.v3.FileAccessLog",
            path=ACCESS_LOG,
            log_format={"json_format": fields},
        ),
    }


def _discovery(version: str, resources: Iterable[Json]) -> str:
    return json.dumps({"version_info": version, "resources": list(resources)})


def _file_source(name: str) -> Json:
    return {"path_config_source": {"path": f"./{name}"}, "resource_api_version": "V3"}


def _typed(kind: str, **fields: Any) -> Json:
    return {"@type": f"{_TYPE_PREFIX}{kind}", **fields}


def _address(host: str, port: int) -> Json:
    return {"socket_address": {"address": host, "port_value": port}}
