"""``python -m stacks.observability``: writes the Grafana dashboards."""

from stacks.observability.dashboards import write_dashboards

if __name__ == "__main__":
    for path in write_dashboards():
        print(path)
