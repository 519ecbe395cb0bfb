"""The process in which a tenant's statement runs: everything in here but `frames` is imported by that process alone."""
