"""gRPC: serving (`Server`, `service_handler`), calling (`channel`), and errors as statuses."""
