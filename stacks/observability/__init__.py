"""Observability: what Prometheus, Alertmanager and Grafana run with; ``python -m`` writes it."""
