"""Grafana dashboards as code; `python -m deploy.local.dashboards` writes deploy/grafana/dashboards."""
