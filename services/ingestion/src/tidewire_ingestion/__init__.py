"""Ingestion service: admits readings and makes them durable."""
