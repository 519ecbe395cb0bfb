"""Ingestion: admits readings and acknowledges them when they are durable in the log."""
