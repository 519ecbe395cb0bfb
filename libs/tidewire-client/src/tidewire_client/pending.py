"""A batch that has no outcome yet, as the sender keeps it."""

import asyncio

from tidewire_client.encoding import EncodedBatch
from tidewire_client.results import BatchResult


class Pending:
    """The batch, who waits for its outcome, how often it was sent, and how often that ended in trouble of no name."""

    __slots__ = ("attempts", "batch", "future", "troubles")

    def __init__(self, batch: EncodedBatch, future: asyncio.Future[BatchResult]) -> None:
        self.batch = batch
        self.future = future
        self.attempts = 0
        self.troubles = 0
