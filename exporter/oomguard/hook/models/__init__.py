"""Models: loaded at first use, unloaded when idle or when memory is short, in this process or in one of their own.

`registry.Models` is the part of the guard, `model.Model` what the application holds; `constructions` notices models
that nobody registered. Nothing is imported here: what a process does not use costs it nothing.
"""
