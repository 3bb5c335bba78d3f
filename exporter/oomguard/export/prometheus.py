"""``/metrics``: the store's latest values through prometheus-client. Nothing is read for a scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from oomguard.metrics import COUNTER, HISTOGRAM, INFO, Metric
from oomguard.store import Sample


def families(samples: Iterable[Sample]) -> Iterator[Family]:
    """Samples as prometheus-client's families, one for each metric that has any."""
    found: dict[str, Family] = {}
    for sample in samples:
        metric = sample.metric
        family = found.get(metric.name)
        if family is None:
            family = found[metric.name] = _family(metric)
        names = (*metric.label_names, "le") if sample.suffix == "_bucket" else metric.label_names
        family.add_sample(
            metric.name + sample.suffix, dict(zip(names, sample.labels, strict=True)), sample.value
        )
    yield from found.values()


def _family(metric: Metric) -> Family:
    name = metric.name
    if metric.kind == COUNTER:
        name = name.removesuffix("_total")
    elif metric.kind == INFO:
        name = name.removesuffix("_info")
    kind = {COUNTER: "counter", HISTOGRAM: "histogram", INFO: "info"}.get(metric.kind, "gauge")
    return Family(name, metric.help, kind)


class Exporter(Collector):
    """Renders what `samples` returns, in the format that the client asks for."""

    def __init__(self, samples: Callable[[], Iterable[Sample]]) -> None:
        self._samples = samples
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def collect(self) -> Iterator[Family]:
        """For prometheus-client."""
        return families(self._samples())

    def describe(self) -> list[Family]:
        """Nothing: registering must not collect."""
        return []

    def render(self, accept: str) -> tuple[bytes, str]:
        """Body and content type for an Accept header: Prometheus text or OpenMetrics."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self._registry), content_type
