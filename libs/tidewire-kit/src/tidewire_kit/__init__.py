"""What every Tidewire process needs: settings, errors, identity, telemetry, gRPC bootstrap, message log."""
