"""What the server counts, in Prometheus' text format."""

from collections import Counter
from collections.abc import Mapping

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)  # seconds


class Metrics:
    """Counters of one server; used from one thread, that of the event loop.

    Args:
        model: labels of `tinygrow_model_info`.
        capacity: predictions that may be asked for at one time.
    """

    def __init__(self, model: Mapping[str, str], capacity: int) -> None:
        self._model = dict(model)
        self._capacity = capacity
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0
        self.answers: Counter[int] = Counter()
        self.in_flight = 0

    def answered(self, status: int, seconds: float) -> None:
        """Count an answer to `POST /predict`, and the time it took if it was a prediction."""
        self.answers[status] += 1
        if status == 200:
            self._seconds += seconds
            self._buckets[sum(seconds > bound for bound in BUCKETS)] += 1

    def text(self) -> str:
        """Return everything in Prometheus' text format, version 0.0.4."""
        lines = [
            "# HELP tinygrow_model_info The model that is served.",
            "# TYPE tinygrow_model_info gauge",
            f"tinygrow_model_info{_labels(self._model)} 1",
            "# HELP tinygrow_predict_requests_total Answers to POST /predict by HTTP status.",
            "# TYPE tinygrow_predict_requests_total counter",
        ]
        for status, count in sorted(self.answers.items()):
            labels = _labels({"code": str(status)})
            lines.append(f"tinygrow_predict_requests_total{labels} {count}")
        lines += [
            "# HELP tinygrow_predict_in_flight Predictions being worked on.",
            "# TYPE tinygrow_predict_in_flight gauge",
            f"tinygrow_predict_in_flight {self.in_flight}",
            "# HELP tinygrow_predict_capacity Predictions that may be asked for at one time.",
            "# TYPE tinygrow_predict_capacity gauge",
            f"tinygrow_predict_capacity {self._capacity}",
            "# HELP tinygrow_predict_seconds From the request to its prediction.",
            "# TYPE tinygrow_predict_seconds histogram",
        ]
        total = 0
        for bound, count in zip((*BUCKETS, "+Inf"), self._buckets, strict=True):
            total += count
            lines.append(f'tinygrow_predict_seconds_bucket{{le="{bound}"}} {total}')
        lines += [
            f"tinygrow_predict_seconds_sum {self._seconds:.6f}",
            f"tinygrow_predict_seconds_count {total}",
        ]
        return "\n".join(lines) + "\n"


def _labels(values: Mapping[str, str]) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in values.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
