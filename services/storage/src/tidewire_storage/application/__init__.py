"""Use cases: ingest, the queries, upkeep. No transport, no driver; the tenant is the first argument."""
