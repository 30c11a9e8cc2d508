"""Metrics in Prometheus' text format.

It knows the families of ``prometheus-client`` and how to read a status. It must never know the meaning of a metric.
What always holds: each family occurs once, with one HELP and TYPE; the number of series is bounded, since labels are
names of the mesh's nodes and listeners, and reasons from the source code; no hot path uses this file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate
from typing import final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from mesh.figures.instrument import COUNTER, GAUGE, Distribution, Instrument
from mesh.figures.status import Reading, Status, readings

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


def exposition(status: Status, common: Mapping[str, str]) -> bytes:
    """All metrics of ``status``. ``common`` are labels for every series that has no such label itself.

    It takes some 10 µs for each series; as a status is immutable, any thread may call it.
    """
    return generate_latest(_Scrape(status, common))


@final
class _Scrape(Collector):
    """One reading of one status."""

    def __init__(self, status: Status, common: Mapping[str, str]) -> None:
        self._status = status
        self._common = common

    def collect(self) -> Iterable[Family]:
        families: dict[str, Family] = {}
        for reading in readings(self._status):
            instrument = reading.instrument
            common = {name: value for name, value in self._common.items() if name not in instrument.labels}
            family = families.get(instrument.name)
            if family is None:
                family = families[instrument.name] = _family(instrument, (*common, *instrument.labels))
            _add(family, (*common.values(), *reading.labels), reading)
        return families.values()


def _family(instrument: Instrument, labels: tuple[str, ...]) -> Family:
    if instrument.kind == COUNTER:
        return CounterMetricFamily(instrument.name, instrument.help, labels=labels)
    if instrument.kind == GAUGE:
        return GaugeMetricFamily(instrument.name, instrument.help, labels=labels)
    return HistogramMetricFamily(instrument.name, instrument.help, labels=labels)


def _add(family: Family, labels: tuple[str, ...], reading: Reading) -> None:
    value = reading.value
    if isinstance(family, HistogramMetricFamily):
        assert isinstance(value, Distribution)
        bounds = [*map(floatToGoString, value.bounds), "+Inf"]
        family.add_metric(labels, list(zip(bounds, accumulate(value.counts), strict=True)), value.total)
    else:
        assert not isinstance(value, Distribution)
        family.add_metric(labels, value)
