"""`tidewire doctor`: looks at everything the platform depends on and says of each fault what to do about it."""
