"""A broker that is away is told of once, not twenty times a second."""

import logging

from tidewire_kit.log.kafka.client_log import REPEAT_SECONDS, Seldom


def line(client: int, broker: str) -> logging.LogRecord:
    text = "FAIL [tidewire-producer#producer-%d] [thrd:%s]: %s: Connection refused"
    return logging.LogRecord("client", logging.ERROR, "", 0, text, (client, broker, broker), None)


def test_repetitions_are_counted_and_what_is_new_is_said() -> None:
    now = [100.0]
    seldom = Seldom(lambda: now[0])
    first = line(1, "broker:1")

    assert seldom.filter(first)
    assert (first.levelno, first.levelname) == (logging.WARNING, "WARNING")
    assert not any(seldom.filter(line(number, "broker:1")) for number in range(5))
    assert seldom.filter(line(1, "broker:2"))
    now[0] += REPEAT_SECONDS
    later = line(1, "broker:1")
    assert seldom.filter(later)
    assert "5 times more" in later.getMessage()


def test_a_client_without_brokers_leaves_no_more_than_a_few_lines() -> None:
    seldom = Seldom(lambda: 0.0)

    assert sum(seldom.filter(line(number, "broker:1")) for number in range(1000)) == 1
