"""The whole embedded Tidewire platform: the command, all services, up and demo."""
