"""Telemetry: closed metrics, JSON logs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from libs.common.telemetry import Metrics, Names, set_up_logs


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield root
    root.handlers[:], root.level = before, level


def test_metric_has_the_name_of_its_service_and_closed_labels() -> None:
    metrics = Metrics("shelf")
    books = metrics.counter("books_total", "Books put on", {"kind": ("novel", "atlas")})
    books.add(2, "novel")
    books.add(1, "what a caller sent")
    books.add(1, "something else")
    text = metrics.render().decode()
    assert 'closedloop_shelf_books_total{kind="novel"} 2.0' in text
    assert 'closedloop_shelf_books_total{kind="other"} 2.0' in text
    assert "caller" not in text


def test_gauge_and_histogram_are_rendered() -> None:
    metrics = Metrics("shelf")
    metrics.gauge("lag_seconds", "How far behind").set(1.5)
    metrics.histogram("put_seconds", "Time to put", {"kind": ("novel",)}).observe(0.003, "novel")
    text = metrics.render().decode()
    assert "closedloop_shelf_lag_seconds 1.5" in text
    assert 'closedloop_shelf_put_seconds_bucket{kind="novel",le="0.005"} 1.0' in text


def test_undeclared_shapes_are_refused() -> None:
    metrics = Metrics("shelf")
    counter = metrics.counter("books_total", "Books", {"kind": ("novel",)})
    with pytest.raises(ValueError, match="label values"):
        counter.add(1)
    with pytest.raises(ValueError, match="declared already"):
        metrics.counter("books_total", "Again")
    with pytest.raises(ValueError, match="_total"):
        metrics.counter("books", "No unit")
    with pytest.raises(ValueError, match="snake case"):
        metrics.gauge("lag", "No unit")


def test_two_processes_worth_of_metrics_do_not_meet() -> None:
    Metrics("shelf").counter("books_total", "Books").add()
    assert b"books" not in Metrics("shelf").render()


def test_declared_metrics_are_listed_for_the_reference() -> None:
    metrics = Metrics("shelf")
    metrics.counter("books_total", "Books", {"kind": ("novel",)})
    assert [(m.name, m.kind, m.labels) for m in metrics.declared] == [
        ("closedloop_shelf_books_total", "counter", {"kind": ("novel",)})
    ]


def test_logs_are_json_lines_with_extra_fields(
    capsys: pytest.CaptureFixture[str], root_logger: logging.Logger
) -> None:
    set_up_logs("shelf", "info")
    logging.getLogger("somewhere").info("put", extra={"count": 3})
    logging.getLogger("somewhere").debug("not said")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    line = json.loads(lines[0])
    assert (line["message"], line["level"], line["service"], line["count"]) == ("put", "INFO", "shelf", 3)
    assert {"time", "logger"} <= line.keys()


def test_first_names_of_the_operator_are_kept_and_the_rest_is_other() -> None:
    metrics = Metrics("shelf")
    names = Names(2)
    books = metrics.counter("books_total", "Books put on", {"source": names})
    for name in ("till", "shop", "crawler", "till", "x" * 1000):
        books.add(1, name)
    text = metrics.render().decode()
    assert 'books_total{source="till"} 2.0' in text
    assert 'books_total{source="shop"} 1.0' in text
    assert 'books_total{source="other"} 2.0' in text
    assert "crawler" not in text
    assert names.label("crawler") == "other"


def test_counters_with_closed_labels_are_there_before_they_count() -> None:
    metrics = Metrics("shelf")
    metrics.counter("books_total", "Books", {"kind": ("novel", "atlas")})
    metrics.counter("pages_total", "Pages", {"number": [str(number) for number in range(100)]})
    text = metrics.render().decode()
    assert 'closedloop_shelf_books_total{kind="atlas"} 0.0' in text
    assert 'number="7"' not in text


async def test_gauges_are_brought_up_to_date_when_somebody_looks() -> None:
    metrics = Metrics("shelf")
    books, readers = metrics.gauge("book_rows", "Books"), metrics.gauge("reader_rows", "Readers")

    async def look() -> None:
        readers.set(3)

    metrics.before_scrape(lambda: books.set(7))
    metrics.before_scrape(look)
    text = (await metrics.scrape()).decode()
    assert "closedloop_shelf_book_rows 7.0" in text
    assert "closedloop_shelf_reader_rows 3.0" in text


def test_the_process_itself_is_measured() -> None:
    text = Metrics("shelf").render().decode()
    for name in ("cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds", "start_time_seconds"):
        assert f"process_{name} " in text


def test_broker_that_goes_and_comes_back_is_told_once_each(
    root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logs("shelf")
    ours, theirs = logging.getLogger("libs.common.bus.kafka.client"), logging.getLogger("aiokafka.client")

    def tell(answers: bool, broker: str = "kafka:9092") -> None:
        level = logging.INFO if answers else logging.WARNING
        ours.log(level, "answers" if answers else "away", extra={"broker": broker, "answers": answers})

    tell(True)
    for _ in range(50):
        tell(False)
        theirs.error("Unable connect to node with id %s: %s", 1, "refused")
        theirs.error('Unable connect to "%s:%s": %s', "kafka", 9092, "refused")
    tell(False, "other:9092")
    for _ in range(3):
        tell(True)
    tell(False)
    theirs.error("Topic %s is not authorized for this client", "customer-events")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["message"], line.get("broker")) for line in lines] == [
        ("away", "kafka:9092"),
        ("away", "other:9092"),
        ("answers", "kafka:9092"),
        ("away", "kafka:9092"),
        ("Topic customer-events is not authorized for this client", None),
    ]
