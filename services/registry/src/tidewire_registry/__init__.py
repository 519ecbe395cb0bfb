"""Registry service: tenants, devices, credentials."""
