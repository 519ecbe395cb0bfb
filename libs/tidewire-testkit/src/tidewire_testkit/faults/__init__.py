"""Load that keeps books while something under it is killed: what was acknowledged must be there afterwards, once.

`log_load` writes to a message log, `row_load` to Cassandra; the tests in tests/faults disturb the servers meanwhile.
"""
