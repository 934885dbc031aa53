"""Grafana dashboards, described here once; ``python -m stacks.observability`` writes their JSON.

Each panel is a title, a unit of Grafana and PromQL queries by legend. ``$model`` is the dashboard's
variable; a test executes every query against a Prometheus that scrapes a real service.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DatasourceVariable,
    QueryVariable,
    Row,
)
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.builders.timeseries import Panel as TimeSeries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    VariableRefresh,
)

FOLDER = Path(__file__).parent / "grafana"
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_COLUMNS, _HEIGHT = 2, 8
_GRID_WIDTH = 24


@dataclass(frozen=True)
class Panel:
    """One diagram over time.

    Attributes:
        title: Above it.
        queries: PromQL by legend, which may name labels as ``{{label}}``.
        unit: Grafana's name of the unit, such as ``s``, ``reqps`` or ``percentunit``.
        description: What to look for.
    """

    title: str
    queries: Mapping[str, str]
    unit: str = "short"
    description: str = ""


@dataclass(frozen=True)
class Page:
    """One dashboard.

    Attributes:
        name: Of its file, and its ``uid`` behind ``cv-factory-``.
        title: Above it.
        model_metric: A metric whose label ``model`` has the choices of ``$model``.
        rows: Panels by the row's title.
    """

    name: str
    title: str
    model_metric: str
    rows: Mapping[str, tuple[Panel, ...]]


def _of_model(metric: str) -> str:
    return f'{metric}{{model="$model"}}'


def _rate(metric: str, by: str, match: str = "") -> str:
    """Return the rate of a counter of the model over five minutes, summed by some labels."""
    return f'sum by ({by}) (rate({metric}{{model="$model"{match}}}[5m]))'


def _age(metric: str) -> str:
    return f"time() - {_of_model(metric)}"


_VERSION, _ARM = "version {{version}}", "version {{version}} ({{arm}})"
_STEP = "{{pipeline}}: {{step}}"
_MONITOR = "cv_factory_monitor"
_RUN = "cv_factory_pipeline_last"

_REQUESTS = (
    Panel(
        "Requests by version",
        {_ARM: _of_model("cv_factory:proxy_requests:rate5m")},
        "reqps",
    ),
    Panel(
        "Failed requests of clients",
        {span: _of_model(f"cv_factory:error_ratio:rate{span}") for span in ("5m", "1h", "6h")},
        "percentunit",
        "0.1 % uses up the errors that a month may have.",
    ),
    Panel(
        "Time to answer a prediction, p99",
        {_ARM: _of_model("cv_factory:prediction_seconds:p99_5m")},
        "s",
    ),
    Panel(
        "Problems by kind",
        {"{{kind}} (version {{version}})": _rate("cv_factory_problems_total", "kind, version")},
        "reqps",
    ),
    Panel(
        "Answers at the model's port",
        {
            "{{envoy_response_code_class}}xx": _rate(
                "envoy_http_downstream_rq_xx_total", "envoy_response_code_class"
            )
        },
        "reqps",
    ),
    Panel(
        "Not answered yet",
        {_ARM: f"sum by (version, arm) ({_of_model('cv_factory_proxy_in_flight')})"},
    ),
)
_PREDICTIONS = (
    Panel(
        "Predicted images by label",
        {"{{label}}": _rate("cv_factory_predictions_total", "label")},
        "cps",
    ),
    Panel(
        "Unfamiliar images",
        {
            _VERSION: _rate("cv_factory_unfamiliar_images_total", "version")
            + " / "
            + _rate("cv_factory_predictions_total", "version")
        },
        "percentunit",
    ),
    Panel(
        "Images in one run of the graph",
        {
            _VERSION: _rate("cv_factory_batch_images_sum", "version")
            + " / "
            + _rate("cv_factory_batch_images_count", "version")
        },
    ),
    Panel(
        "Found in the response cache",
        {
            _VERSION: _rate("cv_factory_cache_lookups_total", "version", ',found="true"')
            + " / "
            + _rate("cv_factory_cache_lookups_total", "version")
        },
        "percentunit",
    ),
)
_PROCESSES = (
    Panel("Services that answer", {_ARM: _of_model("cv_factory_service_up")}),
    Panel(
        "Workers",
        {
            _VERSION: _of_model("cv_factory_workers"),
            f"{_VERSION}, configured": _of_model("cv_factory_workers_configured"),
        },
    ),
    Panel("Images in the queues", {_VERSION: _of_model("cv_factory_queue_images")}),
    Panel(
        "Lost log lines, labels received, open WebSockets",
        {
            f"lost lines, {_VERSION}": f"increase({_of_model('cv_factory_log_dropped_total')}[5m])",
            f"labels, {_VERSION}": f"increase({_of_model('cv_factory_labels_total')}[5m])",
            f"WebSockets, {_VERSION}": _of_model("cv_factory_websocket_connections"),
        },
    ),
)
_EVIDENCE = (
    Panel(
        "Evidence by detector",
        {
            "{{detector}} (version {{version}})": _of_model(f"{_MONITOR}_evidence"),
            "{{detector}}, alarm at": _of_model(f"{_MONITOR}_evidence_threshold"),
        },
    ),
    Panel(
        "Findings",
        {"{{detector}}: {{status}}": f'{_MONITOR}_findings{{model="$model",status!="silent"}}'},
        description="A detector without enough evidence has not said that all is well.",
    ),
    Panel("Recommended", {"{{action}}": _of_model(f"{_MONITOR}_recommendation")}),
)
_ACCURACY = (
    Panel(
        "Accuracy as estimated without labels",
        {"{{estimator}} (version {{version}})": _of_model(f"{_MONITOR}_estimated_accuracy_ratio")},
        "percentunit",
    ),
    Panel(
        "How far the estimates may be off",
        {"{{estimator}}": _of_model(f"{_MONITOR}_estimate_error_ratio")},
        "percentunit",
    ),
    Panel(
        "Predictions with a label",
        {_VERSION: _of_model(f"{_MONITOR}_label_coverage_ratio")},
        "percentunit",
    ),
)
_WINDOWS = (
    Panel(
        "Predictions, labels, refused images",
        {name: _of_model(f"{_MONITOR}_{name}") for name in ("predictions", "labels", "refused")},
    ),
    Panel(
        "Time since the last run", {_VERSION: _age(f"{_MONITOR}_last_run_timestamp_seconds")}, "s"
    ),
)
_PIPELINE_RUNS = (
    Panel("Last run succeeded", {"{{pipeline}}": _of_model(f"{_RUN}_run_success")}),
    Panel("Time since the last run", {"{{pipeline}}": _age(f"{_RUN}_run_timestamp_seconds")}, "s"),
    Panel(
        "Time since the last success",
        {"{{pipeline}}": _age(f"{_RUN}_success_timestamp_seconds")},
        "s",
    ),
    Panel(
        "Duration of the last run",
        {"{{pipeline}}": _of_model(f"{_RUN}_run_duration_seconds")},
        "s",
    ),
    Panel(
        "Duration of its steps",
        {_STEP: _of_model("cv_factory_step_last_run_duration_seconds")},
        "s",
    ),
    Panel("Steps that failed", {_STEP: f"1 - {_of_model('cv_factory_step_last_run_success')}"}),
)
_ALERTS = (
    Panel("Open incidents", {"{{severity}}": "cv_factory_incidents"}),
    Panel("Messages that wait for their receiver", {"messages": "cv_factory_alerts_waiting"}),
)
PAGES = (
    Page(
        "service",
        "CV Factory: service",
        "cv_factory_service_up",
        {"Requests": _REQUESTS, "Predictions": _PREDICTIONS, "Processes": _PROCESSES},
    ),
    Page(
        "monitoring",
        "CV Factory: monitoring",
        f"{_MONITOR}_last_run_timestamp_seconds",
        {"Evidence": _EVIDENCE, "Accuracy": _ACCURACY, "The monitor": _WINDOWS},
    ),
    Page(
        "pipelines",
        "CV Factory: pipelines and alerts",
        f"{_RUN}_run_success",
        {"Pipelines": _PIPELINE_RUNS, "Alerts": _ALERTS},
    ),
)


def render_dashboard(page: Page) -> str:
    """Return a dashboard as the JSON that Grafana imports and provisions."""
    dashboard = (
        Dashboard(page.title)
        .uid(f"cv-factory-{page.name}")
        .tags(["cv-factory"])
        .refresh("1m")
        .time("now-24h", "now")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_model_variable(page.model_metric))
    )
    for title, panels in page.rows.items():
        dashboard.with_row(Row(title))
        for panel in panels:
            dashboard.with_panel(_build_panel(panel))
    return str(JSONEncoder(sort_keys=True, indent=2).encode(dashboard.build())) + "\n"


def list_queries(page: Page) -> list[str]:
    """Return all queries of a dashboard, with its variable."""
    panels = (panel for panels in page.rows.values() for panel in panels)
    return [query for panel in panels for query in panel.queries.values()]


def write_dashboards() -> list[Path]:
    """Write all dashboards and return their files."""
    FOLDER.mkdir(exist_ok=True)
    files = []
    for page in PAGES:
        files.append(FOLDER / f"{page.name}.json")
        files[-1].write_text(render_dashboard(page), encoding="utf-8")
    return files


def _model_variable(metric: str) -> Any:
    return (
        QueryVariable("model")
        .label("Model")
        .datasource(_SOURCE)
        .query(f"label_values({metric}, model)")
        .refresh(VariableRefresh.ON_DASHBOARD_LOAD)
    )


def _build_panel(panel: Panel) -> Any:
    built = (
        TimeSeries()
        .title(panel.title)
        .description(panel.description)
        .datasource(_SOURCE)
        .unit(panel.unit)
        .min(0)
        .span(_GRID_WIDTH // _COLUMNS)
        .height(_HEIGHT)
    )
    for number, (legend, query) in enumerate(panel.queries.items()):
        target = Dataquery().expr(query).legend_format(legend).ref_id(chr(ord("A") + number))
        built.with_target(target.datasource(_SOURCE))
    return built
