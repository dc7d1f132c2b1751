"""Metrics for Prometheus; alerts, and how people learn of them."""
