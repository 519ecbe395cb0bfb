"""The commands, one module for each noun or verb. `tidewire_cli.main` puts them together."""
