"""The contract of `MessageLog`, as named cases that every adapter passes.

An adapter's test module subclasses `MessageLogContract` and provides the fixture `message_log_factory`: a coroutine
function that returns another started log over the same stored data, as another process would open it, and closes all
of them after the test. Topics and groups have fresh names, so that cases may share a cluster. What an adapter cannot do
it declares in `lacking`, by names of `capabilities`.
"""

from tidewire_testkit.log_contract.consumers import ConsumerCases
from tidewire_testkit.log_contract.groups import GroupCases
from tidewire_testkit.log_contract.lag import LagCases
from tidewire_testkit.log_contract.streams import StreamCases
from tidewire_testkit.log_contract.support import MessageLogFactory, RecordingHandler
from tidewire_testkit.log_contract.tables import TableCases

__all__ = ["MessageLogContract", "MessageLogFactory", "RecordingHandler"]


class MessageLogContract(StreamCases, ConsumerCases, GroupCases, TableCases, LagCases):
    """Subclass it in an adapter's tests, with the fixture `message_log_factory`."""
