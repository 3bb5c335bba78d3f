"""The real Prometheus and Alertmanager of Debian's packages, at their fastest settings, on loopback."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.support.client import read, wait_for
from tests.support.guarded import free_port
from tests.support.real_prometheus import RealPrometheus

from oomguard.store import Sample, labels_of


class _Server:
    """One program with a folder of its own, started on entering and ended on leaving."""

    def __init__(self) -> None:
        self.port = free_port()
        self._stack = contextlib.ExitStack()

    def _start(self, folder: Path, argv: Sequence[str]) -> None:
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(argv, stdout=log, stderr=log)
        self._stack.callback(self._end)
        try:
            wait_for(self.port, "/-/ready", timeout=60)
        except TimeoutError:
            raise RuntimeError(f"{argv[0]} is not ready; its log: {(folder / 'log').read_text()}") from None

    def _end(self) -> None:
        self._process.terminate()
        self._process.wait(30)

    def _folder(self) -> Path:
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="oomguard-bench-")))

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()


class Prometheus(_Server):
    """Scrapes and evaluates once a second: it takes no shorter interval of scrapes and rules together well."""

    def __init__(
        self, *, rules: Sequence[Path], scrape: int | None = None, alertmanager: int | None = None
    ) -> None:
        """`scrape` is the port of a sidecar, `alertmanager` where alerts go."""
        super().__init__()
        self._rules, self._scrape, self._alertmanager = rules, scrape, alertmanager

    def __enter__(self) -> Prometheus:  # noqa: PYI034 - typing.Self needs Python 3.11
        folder = self._folder()
        seconds = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        config: dict[str, object] = {"global": seconds, "rule_files": [str(path) for path in self._rules]}
        if self._scrape is not None:
            targets = [{"targets": [f"127.0.0.1:{self._scrape}"]}]
            config["scrape_configs"] = [{"job_name": "oomguard", "static_configs": targets}]
        if self._alertmanager is not None:
            targets = [{"targets": [f"127.0.0.1:{self._alertmanager}"]}]
            config["alerting"] = {"alertmanagers": [{"static_configs": targets}]}
        (folder / "prometheus.yml").write_text(json.dumps(config))
        argv = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        argv += ["--web.enable-remote-write-receiver", f"--web.listen-address=127.0.0.1:{self.port}"]
        self._start(folder, argv)
        self._remote = RealPrometheus(self.port)  # type: ignore[no-untyped-call]
        return self

    def write(self, slots: Sequence[tuple[float, Sequence[Sample]]]) -> None:
        """Samples of (Unix seconds, series), by remote write."""
        points: dict[tuple[tuple[str, str], ...], list[tuple[int, float]]] = {}
        for at, samples in slots:
            for sample in samples:
                points.setdefault(labels_of(sample), []).append((round(1000 * at), sample.value))
        self._remote.write(list(points.items()))  # type: ignore[no-untyped-call]

    def metric(self, name: str) -> list[float]:
        """The values of all series of one of its own metrics."""
        lines = read(self.port, "/metrics").splitlines()
        return [float(line.rpartition(" ")[2]) for line in lines if line.startswith((name + "{", name + " "))]


class Alertmanager(_Server):
    """With a configuration of the caller's."""

    def __init__(self, config: str) -> None:
        super().__init__()
        self._config = config

    def __enter__(self) -> Alertmanager:  # noqa: PYI034 - typing.Self needs Python 3.11
        folder = self._folder()
        (folder / "alertmanager.yml").write_text(self._config)
        argv = ["prometheus-alertmanager", f"--config.file={folder}/alertmanager.yml"]
        argv += [f"--storage.path={folder}/data", "--cluster.listen-address="]
        argv += [f"--web.listen-address=127.0.0.1:{self.port}"]
        self._start(folder, argv)
        return self
