"""Use cases of the registry: they decide; they know no wire format and no driver.

tenants, devices, credentials, tokens    what callers of the API may ask for, by noun
publishing                               every change reaches the registry topic, in order
topic_watch                              notices where the topic goes back to an older revision
upkeep                                   heartbeat, purge of deleted tenants, memory of requests
requests                                 `request_id`, and repeating a decision after a conflict
public_keys                              reading devices' keys
"""
