"""Starts oomguard's hook in a Python that does not have oomguard installed, then steps aside.

This directory stands first on PYTHONPATH, so that any Python of the target imports this file at its start,
2.7 as well: keep its syntax to what all of them read. Below 3.10 it only chains.

It loads oomguard from where this file lies, as a package on its own: the site-packages around it belong to the
sidecar's environment and must not come onto the target's path. Where the target has an oomguard of its
own, that one is used. Then the sitecustomize that Python would have found without this one runs in its place.
"""

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))
_NAME = "sitecustomize"


def _package():
    import importlib.util

    home = os.path.dirname(os.path.dirname(_HERE))
    spec = importlib.util.spec_from_file_location(
        "oomguard", os.path.join(home, "__init__.py"), submodule_search_locations=[home]
    )
    package = importlib.util.module_from_spec(spec)
    sys.modules["oomguard"] = package
    spec.loader.exec_module(package)


def _start():
    if sys.version_info < (3, 10) or "OOMGUARD_RUNTIME_DIR" not in os.environ:
        return
    try:
        import oomguard.hook.autostart
    except ImportError:
        if "oomguard" in sys.modules:
            return  # somebody else's module of this name, or a version without a hook: it is theirs
        _package()
        import oomguard.hook.autostart
    import oomguard.hook.launchers

    oomguard.hook.launchers.stay_first(_HERE)


def _behind():
    """What the path holds behind this directory, without what has been chained to already.

    A launcher's own sitecustomize may chain, too, and find this file again: nobody runs twice.
    """
    done = sys.__dict__.setdefault("_oomguard_chained", [])
    places = [os.path.abspath(place) for place in sys.path]
    first = places.index(_HERE) + 1 if _HERE in places else 0
    return done, [
        place
        for place, absolute in zip(sys.path[first:], places[first:])
        if absolute != _HERE and absolute not in done
    ]


def _chain():
    """Run the next sitecustomize under its own name; what it raises goes to site, as without this file."""
    done, places = _behind()
    if sys.version_info[0] == 2:
        import imp

        try:
            found = imp.find_module(_NAME, places)
        except ImportError:
            return
        done.append(os.path.dirname(os.path.abspath(found[1])))
        _kept.append(sys.modules.get(_NAME))  # Python 2 clears the globals of a module that nobody holds
        imp.load_module(_NAME, *found)
        return
    from importlib.machinery import PathFinder

    spec = PathFinder.find_spec(_NAME, places)
    if spec is None or spec.loader is None:
        return
    home = os.path.dirname(os.path.abspath(spec.origin))
    done.append(os.path.dirname(home) if spec.submodule_search_locations else home)
    from importlib.util import module_from_spec

    module = module_from_spec(spec)
    sys.modules[_NAME] = module
    spec.loader.exec_module(module)


_kept = []
try:
    _start()
except Exception:
    pass
_chain()
