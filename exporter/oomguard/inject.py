"""Getting the hook into the target: the environment it is started with, and why no hook has come.

Python: the wheel's .pth file acts wherever OOMGUARD_RUNTIME_DIR is set. Where oomguard is not installed in the
target's environment, the start-up directory on PYTHONPATH does the same (see hook/startup/sitecustomize.py).
Node: NODE_OPTIONS makes every Node load a file first, which starts the hook where an application runs.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

STARTUP: Final = str(Path(__file__).resolve().parent / "hook" / "startup")
"""The start-up directory; it holds a sitecustomize.py and nothing else that Python would import."""

_HERE: Final = Path(__file__).resolve().parent
_NODE_PLACES: Final = (_HERE / "node", _HERE.parent / "node")
"""Where the Node hook lies: in an installed package, in a checkout."""
NODE_START: Final = next((str(place / "autostart.js") for place in _NODE_PLACES if place.is_dir()), "")
"""The file that Node loads first; empty where this installation has none."""

_OLDEST: Final = (3, 10)
_PYTHON: Final = re.compile(r"^(?:python|pypy)(?:(\d)(?:\.(\d+))?)?t?$")
_NODE: Final = re.compile(r"^node(?:js)?(?:-?v?(\d+)[\d.]*)?$")
_OLDEST_NODE: Final = 18
_HOUSEKEEPERS: Final = re.compile(
    r"^(npm|npx|yarn|yarnpkg|pnpm|pnpx|corepack|node-gyp)(-cli)?(-[0-9].*?)?(\.[cm]?js)?$"
)
"""As exporter/node/autostart.js has it."""
_NODE_WITH_VALUE: Final = ("-r", "--require", "--import", "-C", "--conditions", "--loader", "--env-file")
_WITH_VALUE: Final = "XW"
_ENDING: Final = "cm"


def environment(
    env: Mapping[str, str], runtime_dir: str, *, target: str = "", inject: bool = True
) -> dict[str, str]:
    """Return the target's environment: `env` with the hook's variables; PYTHONPATH and NODE_OPTIONS extended.

    `runtime_dir` is what the hook protocol says: a directory, or ``@name``. With `inject` false nothing
    starts by itself (OOMGUARD_INJECT=0), but a hook that the application starts still finds the sidecar.
    Applied twice it changes nothing more.
    """
    result = {**env, "OOMGUARD_RUNTIME_DIR": runtime_dir, "OOMGUARD_TARGET": target}
    result.pop("OOMGUARD_INJECT", None)
    if not inject:
        result["OOMGUARD_INJECT"] = "0"
        return result
    # Empty entries stay where they are: to Python they mean the working directory.
    before = env.get("PYTHONPATH", "")
    places = before.split(os.pathsep) if before else []
    result["PYTHONPATH"] = os.pathsep.join([STARTUP, *(place for place in places if place != STARTUP)])
    if NODE_START and _everybody_reads(NODE_START):
        result["NODE_OPTIONS"] = node_options(env.get("NODE_OPTIONS", ""), NODE_START)
    return result


def node_options(before: str, file: str) -> str:
    """Put `--require file` in front of NODE_OPTIONS; done twice it changes nothing more.

    Node (cli.md, "NODE_OPTIONS") takes spaces as separators, and inside double quotes a backslash before a quote or
    a backslash. Quoted only where that is needed: Node before 12 knows no quotes, and would not start.
    """
    name = file
    if re.search(r'[\s"\\]', file):
        name = '"{}"'.format(file.replace("\\", "\\\\").replace('"', '\\"'))
    ours = f"--require {name}"
    rest = before.removeprefix(ours) if f"{before} ".startswith(f"{ours} ") else before
    return f"{ours} {rest.lstrip(' ')}".rstrip(" ")


def _everybody_reads(file: str) -> bool:
    """Whether any user can: a Node that can't read what it has to load first does not start."""
    path = Path(file)
    try:
        return bool(path.stat().st_mode & stat.S_IROTH) and all(
            folder.stat().st_mode & stat.S_IXOTH for folder in path.parents
        )
    except OSError:
        return False


def no_hook_cause(proc_root: Path | str, pid: int, *, watched: str = "") -> str:
    """Say in one sentence why process `pid`, started with `environment`, has sent no hook.

    `watched` is the runtime directory of a sidecar that did not start it.
    Reads PID/exe, PID/cmdline and PID/environ (proc_pid_environ(5): as they were at its exec).
    """
    base = Path(proc_root) / str(pid)
    try:
        exe = str((base / "exe").readlink()).removesuffix(" (deleted)")
        command = [os.fsdecode(word) for word in (base / "cmdline").read_bytes().split(b"\0")]
        variables = dict(
            os.fsdecode(entry).partition("=")[::2] for entry in (base / "environ").read_bytes().split(b"\0")
        )
    except FileNotFoundError:
        return "the process has ended"
    except OSError as error:
        return f"its /proc entries can't be read ({error.strerror}): run as its user or with CAP_SYS_PTRACE"
    name = Path(exe).name
    found, node = _PYTHON.match(name), _NODE.match(name)
    if not found and not node:
        return f"{exe} is not Python or Node: oomguard has a hook for these only"
    if watched and "OOMGUARD_RUNTIME_DIR" not in variables:
        how = "pip install oomguard in its environment" if found else "require('oomguard-hook').start() in it"
        return f"oomguard run did not start it: {how}, and start it with OOMGUARD_RUNTIME_DIR={watched}"
    cause = _environment_cause(variables)
    if found:
        return cause or _python_cause(found, command) or _path_cause(variables, exe)
    assert node is not None
    return cause or _node_cause(node, command, variables, exe)


def _environment_cause(variables: Mapping[str, str]) -> str:
    if "OOMGUARD_RUNTIME_DIR" not in variables:
        return "its environment was cleaned (sudo, env -i, …): OOMGUARD_RUNTIME_DIR did not reach it"
    if variables.get("OOMGUARD_HOOK") == "0":
        return "OOMGUARD_HOOK=0 turns the hook off"
    if variables.get("OOMGUARD_INJECT") == "0":
        return "the hook is not injected (--no-inject), and the application has not called hook.start()"
    return ""


def _python_cause(found: re.Match[str], command: Sequence[str]) -> str:
    major, minor = found.groups()
    if major is not None and (int(major), int(minor or 99)) < _OLDEST:
        version = f"{major}.{minor}" if minor else major
        return f"Python {version} is too old: the hook needs 3.10 or later"
    flags = _flags(command)
    if "S" in flags:
        return "Python was started with -S, which runs no start-up code: call hook.start() in the application"
    for flag in "IE":
        if flag in flags:
            return (
                f"Python was started with -{flag}, which ignores PYTHONPATH: "
                "pip install oomguard in the application's environment"
            )
    return ""


def _path_cause(variables: Mapping[str, str], exe: str) -> str:
    places = variables.get("PYTHONPATH", "").split(os.pathsep)
    if STARTUP not in places:
        return (
            "PYTHONPATH was replaced on the way: keep its entries, or install oomguard beside the application"
        )
    for place in places[: places.index(STARTUP)]:
        if place and any((Path(place) / f"sitecustomize{tail}").exists() for tail in (".py", "/__init__.py")):
            return (
                f"{place}/sitecustomize.py stands in front of oomguard's and does not run the ones behind it"
            )
    return f"no cause was found: can the user of {exe} read {STARTUP} and reach the socket?"


def _node_cause(found: re.Match[str], command: Sequence[str], variables: Mapping[str, str], exe: str) -> str:
    if found[1] is not None and int(found[1]) < _OLDEST_NODE:
        return f"Node {found[1]} is too old: the hook needs {_OLDEST_NODE} or later"
    # npm and its like write what they do over their command line ("npm start").
    script = _node_script(command) or command[0].partition(" ")[0]
    if script == "-" or _NODE.match(Path(script).name):
        return (
            "Node was started without a script (-e, -p, standard input): call start() of oomguard-hook in it"
        )
    housekeeper = _HOUSEKEEPERS.match(Path(script).name)
    if housekeeper:
        return f"{housekeeper[1]} gets no hook, the Node that it starts gets one"
    if NODE_START and not _everybody_reads(NODE_START):
        return (
            f"{NODE_START} can't be read by every user, and a Node of another user would not start: "
            "install oomguard in a folder that everybody can read"
        )
    if not NODE_START or NODE_START not in variables.get("NODE_OPTIONS", "").replace("\\\\", "\\"):
        return (
            "NODE_OPTIONS was replaced on the way: keep its options, or require('oomguard-hook').start() in the "
            "application"
        )
    return f"no cause was found: is {exe} Node {_OLDEST_NODE} or later, and can its user reach the socket?"


def _node_script(command: Sequence[str]) -> str:
    """Find the program among Node's arguments; empty where there is none."""
    words = iter(command[1:])
    for word in words:
        if word in ("-e", "-p", "-pe", "--eval", "--print", "-i", "--interactive"):
            return ""
        if word in _NODE_WITH_VALUE:
            next(words, None)
        elif word == "--":
            return next(words, "")
        elif not word.startswith("-") or word == "-":
            return word
    return ""


def _flags(command: Sequence[str]) -> set[str]:
    """Collect the one-letter options before the script, ``-c`` or ``-m`` (python(1))."""
    flags: set[str] = set()
    words = iter(command[1:])
    for word in words:
        if not word.startswith("-") or word == "-":
            break
        if word.startswith("--"):
            if word == "--check-hash-based-pycs":
                next(words, None)
            continue
        for position, letter in enumerate(word[1:], start=1):
            if letter in _ENDING:
                return flags
            if letter in _WITH_VALUE:
                if position == len(word) - 1:
                    next(words, None)
                break
            flags.add(letter)
    return flags
