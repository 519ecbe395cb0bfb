"""Asks every service of a release for its health, as `helm test` does: HOST:PORT … as arguments, status 1 when one does
not serve within a minute (HEALTH_SECONDS). With TLS the authorities are in the file that TIDEWIRE_TLS_CA_FILE names."""

import os
import sys
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

tls_ca = os.environ.get("TIDEWIRE_TLS_CA_FILE")
secure = os.environ.get("TIDEWIRE_INSECURE") != "true"
deadline = time.monotonic() + float(os.environ.get("HEALTH_SECONDS", "60"))


def ask(address):
    """Returns the name of the status that the server answers; grpc.RpcError when it answers nothing."""
    authorities = None
    if tls_ca:
        with open(tls_ca, "rb") as file:
            authorities = file.read()
    credentials = grpc.ssl_channel_credentials(authorities)
    with grpc.secure_channel(address, credentials) if secure else grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=5, wait_for_ready=True)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


for address in sys.argv[1:]:
    status = "not asked"
    while status != "SERVING":
        try:
            status = ask(address)
        except grpc.RpcError as error:
            status = error.code().name
        print(address, status, flush=True)  # noqa: T201 - the log of the test's pod
        if status != "SERVING":
            if time.monotonic() > deadline:
                sys.exit(1)
            time.sleep(2)
