"""Backup and restore of a data directory: `tidewire storage backup`, `restore` and `backups`.

places      where backups are kept: a directory, or an object store
manifest    what a backup says of itself, and the keys of everything in such a place
snapshot    the consistent picture of a data directory that is in use
saving      backs up                     restoring    restores                 progress     shows how far it is
commands    the verbs
"""
