"""The figures of the platform on Kafka and Cassandra: `make bench BACKEND=distributed`.

Each module starts real servers of its own, on the same machine as everything else.
"""
