"""Shares a tenant's quota among the processes of a service by demand.

Each process tells the others once a second what it is asked to take (`exchange`), everybody sees the same reports
(`board`), and `shares` turns them into each process's part. Nobody decides for the others, so there is no process whose
failure would matter. Ingestion uses it for readings and batches; a service that limits anything else per tenant can
too: it has a `Participant` of its own.
"""

from tidewire_kit.fairshare.board import Board, TenantDemand
from tidewire_kit.fairshare.exchange import DemandExchange, Participant
from tidewire_kit.fairshare.shares import FLOOR, average, divide

__all__ = ["FLOOR", "Board", "DemandExchange", "Participant", "TenantDemand", "average", "divide"]
