"""Generated messages and gRPC stubs of Tidewire."""
