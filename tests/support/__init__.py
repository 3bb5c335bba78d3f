"""Helpers that tests share; import them as ``tests.support.…`` with the checkout as working directory."""
