"""SDK of Tidewire: administration, devices, queries."""
