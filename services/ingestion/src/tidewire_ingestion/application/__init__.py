"""Use cases of ingestion: they decide, and know no transport.

`publish` is the use case, `submission` a batch on its way through it; `joint` decides on many batches at once when
nothing is wrong with them, `admission` on one, row by row, by columns, and `explain` says why; `tenants` holds what is
remembered of each tenant, made of `quotas` and `device_metrics`; `resolution` asks for devices not seen yet;
`sequences` counts gaps.
"""
