"""One API server for all tests here, and a namespace for each."""

from collections.abc import Iterator

import pytest

from tidewire_testkit.kube import KubeApi, kube_api


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeApi]:
    with kube_api(tmp_path_factory.mktemp("kube")) as running:
        yield running


@pytest.fixture
def namespace(api: KubeApi, request: pytest.FixtureRequest) -> str:
    from kubernetes.client import CoreV1Api

    client = api.client()
    made = CoreV1Api(client).create_namespace({"metadata": {"generateName": "test-"}})
    client.close()
    return str(made.metadata.name)
