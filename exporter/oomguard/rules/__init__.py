"""Prometheus' rule files, read and evaluated here: files → rule → engine → alerts."""
