"""Finished samples as Prometheus reads them: text or OpenMetrics.

The only module that knows prometheus_client. It keeps nothing and computes nothing: a collector
over a table that is finished, so that no series outlives what it told of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from prometheus_client import exposition as text
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from mwtrace.tell.families import FAMILIES, PREFIX, Family, Sample, Type

TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class _Table(Collector):
    def __init__(self, samples: Iterable[Sample], prefix: str) -> None:
        self._prefix = prefix
        self._by_name: dict[str, list[Sample]] = {}
        for sample in samples:
            self._by_name.setdefault(sample.name, []).append(sample)

    def collect(self) -> Iterator[Metric]:
        for family in FAMILIES:
            samples = self._by_name.get(family.name)
            if samples:
                yield self._metric(family, samples)

    def _metric(self, family: Family, samples: Sequence[Sample]) -> Metric:
        name = self._prefix + family.name
        metric: Metric
        if family.type is Type.COUNTER:
            metric = CounterMetricFamily(name, family.help)
        else:
            metric = GaugeMetricFamily(name, family.help)
        for sample in samples:
            exemplar = None
            if sample.incident:
                exemplar = Exemplar({"incident": sample.incident}, 1.0, sample.incident_unix_s)
            labels = dict(zip(family.labels, sample.labels))
            metric.add_sample(name, labels, sample.value, None, exemplar)
        return metric


def content_type(accept: str) -> str:
    """What a scraper with this Accept header is given: OpenMetrics only if it names it."""
    return OPENMETRICS_TYPE if "application/openmetrics-text" in accept else TEXT_TYPE


def render(samples: Iterable[Sample], prefix: str = PREFIX, content_type: str = TEXT_TYPE) -> bytes:
    """Render samples; as text unless told otherwise, since every reader knows that.

    Exemplars are in OpenMetrics only: a text reader would refuse the file for one.
    """
    generate = openmetrics if content_type == OPENMETRICS_TYPE else text
    return bytes(generate.generate_latest(_Table(samples, prefix)))
