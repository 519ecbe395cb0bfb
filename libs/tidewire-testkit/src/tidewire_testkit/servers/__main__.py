"""The command behind tests/servers: servers for people, and for a test run that shares them.

`start` leaves servers running in the background; `stop`, `kill`, `suspend` and `resume` find them by their directory.
`run` starts servers, runs a command with their addresses in its environment, and takes them away again.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tidewire_testkit.servers.cassandra import CassandraCluster
from tidewire_testkit.servers.cluster import Cluster
from tidewire_testkit.servers.fixtures import CASSANDRA_VARIABLE, KAFKA_VARIABLE
from tidewire_testkit.servers.install import cache_directory, installed
from tidewire_testkit.servers.kafka import KafkaCluster
from tidewire_testkit.servers.processes import Node, ServerError
from tidewire_testkit.servers.s3 import built

CLUSTERS: dict[str, type[KafkaCluster | CassandraCluster]] = {
    "kafka": KafkaCluster,
    "cassandra": CassandraCluster,
}
OLD = ("kafka-old", "cassandra-old")
"""Releases that are refused; only installed."""
S3 = "s3"
"""Only built: whoever needs one starts it in no time."""
VARIABLES = {"kafka": KAFKA_VARIABLE, "cassandra": CASSANDRA_VARIABLE}


def main() -> int:
    """Runs the command and returns its exit status."""
    words, command = sys.argv[1:], []
    if "--" in words:
        cut = words.index("--")
        words, command = words[:cut], words[cut + 1 :]
    arguments = _parser().parse_args(words)
    try:
        match arguments.verb:
            case "install":
                for name in arguments.names or (*CLUSTERS, *OLD, S3):
                    print(built() if name == S3 else installed(name))
            case "start":
                _start(arguments)
            case "run":
                return _run(arguments.names or list(CLUSTERS), command)
            case verb:
                _signal(verb, arguments)
    except ServerError as error:
        print(f"servers: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="servers", description="Kafka and Cassandra for tests, without containers."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    install = verbs.add_parser(
        "install",
        help="fetch the jars of one, or of all and of the old releases, and build the S3 server; what is there stays",
    )
    run = verbs.add_parser(
        "run", help="start one or all on free addresses, run the command after --, stop them"
    )
    for verb in (install, run):
        verb.add_argument("names", metavar="NAME", nargs="*", type=_name, help=" or ".join(CLUSTERS))

    start = verbs.add_parser(
        "start", help="start what does not run, wait until it can be used, print settings"
    )
    start.add_argument("--nodes", type=int, choices=(1, 3), default=1)
    start.add_argument(
        "--address", default="127.0.0.1", help="of the first node; others follow it (127.0.0.1)"
    )
    start.add_argument("--port", type=int, help="the clients' port; by default the customary one")
    start.add_argument("--secure", action="store_true", help="TLS and authentication")
    start.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="a setting of the server"
    )
    stop = verbs.add_parser("stop", help="stop in an orderly way")
    stop.add_argument("--wipe", action="store_true", help="and remove all data")
    others = [
        verbs.add_parser("kill", help="kill by SIGKILL, as in a crash"),
        verbs.add_parser("suspend", help="suspend by SIGSTOP"),
        verbs.add_parser("resume", help="let go on what is suspended"),
    ]
    for verb in (start, stop, *others):
        verb.add_argument("name", metavar="NAME", type=_name, help=" or ".join(CLUSTERS))
        verb.add_argument(
            "--dir", type=Path, help="data, configuration and logs; by default in the cache directory"
        )
    for verb in (stop, *others):
        verb.add_argument("--node", type=int, help="only this node, from 1")
    return parser


def _name(word: str) -> str:
    if word not in CLUSTERS:
        raise argparse.ArgumentTypeError(f"no server called {word!r}; there are {', '.join(CLUSTERS)}")
    return word


def _pair(word: str) -> tuple[str, object]:
    key, found, value = word.partition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"{word!r} is not KEY=VALUE")
    return key, value


def _start(arguments: argparse.Namespace) -> None:
    directory = _directory(arguments)
    shape = {key: getattr(arguments, key) for key in ("nodes", "address", "port", "secure")}
    made = directory / "shape.json"
    if made.exists() and (before := json.loads(made.read_text())) != shape:
        raise ServerError(
            f"{directory} holds a {arguments.name} with {before}; first: stop {arguments.name} --wipe"
        )
    settings = dict(pair.split("=", 1) for pair in arguments.set)
    cluster = CLUSTERS[arguments.name](**shape, settings=settings, directory=directory, leashed=False)
    directory.mkdir(parents=True, exist_ok=True)
    made.write_text(json.dumps(shape))
    cluster.start()
    for key, value in cluster.environ().items():
        print(f"export {key}={value}")


def _signal(verb: str, arguments: argparse.Namespace) -> None:
    directory = _directory(arguments)
    pattern = "node*" if arguments.node is None else f"node{arguments.node}"
    for home in sorted(directory.glob(pattern)):
        node = Node(home, "", [], leashed=False)
        match verb:
            case "stop":
                node.stop()
            case "kill":
                node.kill()
            case "suspend":
                node.suspend()
            case "resume":
                node.resume()
    if verb == "stop" and arguments.wipe and arguments.node is None:
        shutil.rmtree(directory, ignore_errors=True)


def _directory(arguments: argparse.Namespace) -> Path:
    directory: Path = arguments.dir or cache_directory() / "run" / arguments.name
    return directory.absolute()


def _run(names: list[str], command: list[str]) -> int:
    if not command:
        raise ServerError("run needs a command after --")
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    clusters: dict[str, Cluster] = {name: CLUSTERS[name](lasting=False) for name in names}
    status = 1
    try:
        for cluster in clusters.values():
            cluster.start(wait=False)
        for cluster in clusters.values():
            cluster.wait_ready()
        environ = {VARIABLES[name]: cluster.client_addresses() for name, cluster in clusters.items()}
        status = subprocess.run(command, env=os.environ | environ, check=False).returncode
    finally:
        for name, cluster in clusters.items():
            if status != 0:
                print(f"servers: logs of {name}: {cluster.keep_logs()}", file=sys.stderr)
            cluster.close()
    return status


if __name__ == "__main__":
    sys.exit(main())
