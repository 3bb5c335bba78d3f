"""Measurements of what oomguard promises; ``python -m bench`` runs them all and writes bench/RESULTS.md.

None of them is a test: they print what this machine did. They need root, cgroup v1 and the development
environment.
"""
