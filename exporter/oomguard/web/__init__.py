"""The sidecar's HTTP: metrics, health, JSON and the live page."""
