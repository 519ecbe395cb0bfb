"""Wire format ↔ the registry's objects. Used by grpc_api and by the adapter that writes the registry topic.

resources    tenants, devices, credentials, tombstones
masks        update masks → what changes
paging       page sizes and page tokens
requests     fingerprints of requests
"""
