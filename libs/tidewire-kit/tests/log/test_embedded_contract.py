"""The embedded log keeps the contract of the port, with segments small enough that every case crosses some."""

from tidewire_testkit.log_contract import MessageLogContract


class TestEmbeddedLog(MessageLogContract):
    pass
