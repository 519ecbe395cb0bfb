"""The tidewire command."""
