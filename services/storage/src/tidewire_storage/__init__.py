"""Storage service: keeps readings and answers queries."""
