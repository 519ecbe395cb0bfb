import base64
import json

import pytest
import yaml

from tidewire_client import load_private_key


def token_of(claims):
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"header.{body}.signature"


def test_wrong_usage_is_2(tidewire):
    assert tidewire("device", "nonsense").exit_code == 2
    assert tidewire("device", "list", "--output", "xml").exit_code == 2
    assert tidewire("publish", "d-1").exit_code == 2
    result = tidewire("device", "list")
    assert result.exit_code == 2
    assert "tidewire up" in result.stderr


def test_nobody_there_is_3_and_says_what_to_do(tidewire, monkeypatch):
    monkeypatch.setenv("TIDEWIRE_TOKEN", "x")
    monkeypatch.setattr("tidewire_cli.session.RETRY_SECONDS", 0.0)
    result = tidewire("device", "list", "--endpoint", "127.0.0.1:1", "--tenant", "demo")
    assert result.exit_code == 3
    assert result.stderr.startswith("Error: cannot reach registry at 127.0.0.1:1")
    assert "tidewire up" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"\xff\xfe\x00", "holds no token"),
        ("schlüssel".encode(), "holds no token"),
        (b"a b", "no token"),
    ],
)
def test_a_file_that_holds_no_token_is_named(tidewire, tmp_path, content, told):
    file = tmp_path / "my.token"
    file.write_bytes(content)
    result = tidewire("device", "list", "--token-file", str(file))
    assert result.exit_code == 2
    assert str(file) in result.stderr
    assert told in result.stderr


@pytest.mark.parametrize(
    "endpoint", ["nonsense", "127.0.0.1:0", "127.0.0.1:99999", "127.0.0.1:٣", "ftp://a:1"]
)
def test_what_is_no_endpoint_is_wrong_usage(online, endpoint):
    result = online("device", "list", "--endpoint", endpoint)
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert f"'{endpoint}' is not an endpoint" in result.stderr


def test_a_context_named_on_the_command_line_beats_the_environment(tidewire, platform, monkeypatch, tmp_path):
    token = tmp_path / "token"
    token.write_text("header.e30.signature")
    given = ("--endpoint", platform.endpoint, "--tenant", "demo", "--token-file", str(token))
    assert tidewire("context", "create", "there", *given).exit_code == 0
    monkeypatch.setenv("TIDEWIRE_ENDPOINT", "127.0.0.1:1")
    monkeypatch.setenv("TIDEWIRE_TOKEN", "of-somebody-else")
    monkeypatch.setattr("tidewire_cli.session.RETRY_SECONDS", 0.0)
    assert tidewire("device", "list").exit_code == 3
    assert tidewire("device", "list", "--context", "there").exit_code == 0


def test_refused_is_4(online):
    result = online("device", "get", "nope")
    assert (result.exit_code, result.stderr) == (4, "Error: tenants/demo/devices/nope does not exist\n")
    assert online("tenant", "delete", "demo", "--yes").exit_code == 4


def test_deleting_wants_to_be_confirmed(online):
    result = online("tenant", "delete", "demo")
    assert result.exit_code == 2
    assert "--yes" in result.stderr


def test_devices_as_tables_json_yaml_and_csv(online, platform):
    assert online("device", "list").stdout == ""
    result = online(
        "device", "create", "d-1", "--type", "pump", "-l", "floor=3", "--location", "43.18,-70.43"
    )
    assert result.stdout == "Created device d-1 in tenant demo.\n"
    assert "credential create d-1" in result.stderr
    device = platform.registry.devices["d-1"]
    assert (device.type, dict(device.labels), device.location.longitude) == ("pump", {"floor": "3"}, -70.43)
    table = online("device", "list").stdout.splitlines()
    assert table[0].split() == ["DEVICE", "STATE", "TYPE", "PARENT", "LABELS", "CREATED"]
    assert table[1].split() == ["d-1", "ENROLLED", "pump", "floor=3"]
    (listed,) = json.loads(online("device", "list", "-o", "json").stdout)
    assert listed["id"] == "d-1"
    assert listed["location"] == {"latitude": 43.18, "longitude": -70.43}
    assert yaml.safe_load(online("device", "get", "d-1", "-o", "yaml").stdout) == listed
    assert (
        online("device", "list", "-o", "csv").stdout.splitlines()[0].startswith("id,name,type,labels.floor")
    )
    assert online("device", "create", "d-1").exit_code == 4


@pytest.mark.parametrize(
    "arguments",
    [
        ("device", "create", "d", "--location", "north"),
        ("device", "create", "d", "--label", "x"),
        ("device", "update", "d-1"),
        ("credential", "create", "d"),
        ("token", "create", "me", "--role", "king"),
        ("token", "create", "me", "--ttl", "soon"),
        ("tenant", "create", "t", "--quota", "devices=many"),
        ("publish", "d", "a=high"),
        ("publish", "d", "a=1", "a=2"),
        ("publish", "d", "a"),
        ("publish", "d", "a=1", "--time", "yesterday"),
        ("query", "--rows"),
        ("query", "d", "--every", "1h"),
        ("query", "d", "--last", "1h", "--start", "-2h"),
        ("query", "d", "--start", "now", "--end", "-2h"),
        ("query", "d", "--rows", "--aggregate", "avg"),
        ("query", "d", "--aggregate", "median"),
        ("query", "d", "--filter", "type = pump"),
        ("query", "d", "--group-by", "site"),
        ("query", "d", "--aggregate", "p95", "--group-by", "site", "--across"),
        ("context", "use", "nowhere"),
        ("context", "create", "here", "--endpoint", "nonsense"),
        ("import", "none.csv"),
        ("simulate", "--duration", "0s"),
    ],
)
def test_mistakes_are_one_line_that_names_the_option(online, platform, arguments):
    online("device", "create", "d-1")
    result = online(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ")
    assert len(result.stderr.splitlines()) == 1


def test_a_key_pair_is_made_here_and_only_its_public_half_leaves(online, platform):
    online("device", "create", "d-1")
    result = online("credential", "create", "d-1", "--generate", "-o", "json")
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)
    key = load_private_key(made["key_file"])
    assert platform.registry.credentials[0].public_key_pem.startswith("-----BEGIN PUBLIC KEY-----")
    import os
    import stat

    assert stat.S_IMODE(os.stat(made["key_file"]).st_mode) == 0o600
    assert "PRIVATE" not in result.output
    token = online("device", "token", "d-1").stdout.strip()
    import jwt

    claims = jwt.decode(token, key.public_key(), ["EdDSA"], audience="tidewire")
    assert claims["sub"] == "d-1"
    assert jwt.get_unverified_header(token)["kid"] == made["id"]
    assert online("device", "token", "other").exit_code == 2
    assert online("credential", "create", "nope", "--generate").exit_code == 4


def test_a_token_is_printed_only_when_nothing_else_keeps_it(online, home):
    assert online("token", "create", "ops").stdout == "made.for.you\n"
    path = home / "ops.token"
    result = online("token", "create", "ops", "--file", str(path))
    assert "made.for.you" not in result.output
    assert path.read_text() == "made.for.you\n"
    assert path.stat().st_mode & 0o777 == 0o600
    result = online("token", "create", "ops", "--save-context", "ops")
    assert "made.for.you" not in result.output
    config = home / "config" / "tidewire" / "config.yaml"
    assert config.stat().st_mode & 0o777 == 0o600
    assert "made.for.you" in config.read_text()
    assert "made.for.you" not in online("context", "list", "-o", "json").output
    assert "made.for.you" not in online("context", "get", "ops").output


def test_contexts_are_kept_chosen_and_removed(tidewire, platform, home):
    token = home / "t"
    token.write_text("header.e30.signature")
    for name in ("one", "two"):
        result = tidewire(
            "context",
            "create",
            name,
            "--endpoint",
            platform.endpoint,
            "--token-file",
            str(token),
            "--tenant",
            "demo",
        )
        assert result.exit_code == 0, result.output
    assert [
        one["name"] for one in json.loads(tidewire("context", "list", "-o", "json").stdout) if one["current"]
    ] == ["two"]
    assert tidewire("context", "use", "one").exit_code == 0
    assert tidewire("tenant", "get").exit_code == 0
    assert tidewire("tenant", "get", "--context", "three").exit_code == 2
    assert tidewire("context", "delete", "one").exit_code == 0
    assert tidewire("tenant", "get").exit_code == 2
    assert tidewire("tenant", "get", "--context", "two").exit_code == 0


def test_a_config_that_is_broken_is_named(tidewire, home):
    path = home / "config" / "tidewire" / "config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text("contexts: [1, 2]")
    result = tidewire("context", "list")
    assert result.exit_code == 2
    assert str(path) in result.stderr


def test_an_administrator_acts_for_a_tenant_by_a_token_of_an_hour(online, platform, monkeypatch):
    monkeypatch.setenv("TIDEWIRE_TOKEN", token_of({"sub": "root", "roles": ["platform-admin"]}))
    online("device", "create", "d-1")
    assert online("publish", "d-1", "a=1", "--tenant", "demo").exit_code == 0
    (asked,) = platform.registry.tokens
    assert (asked.tenant, list(asked.roles), asked.ttl.seconds) == ("tenants/demo", ["tenant-admin"], 3600)
    assert platform.ingestion.tokens == ["Bearer made.for.you"]


def test_publish(online, platform):
    result = online(
        "publish", "d-1", "a=1.5", "on=true", "--time", "2026-11-22T10:15:00Z", "--create", "-o", "json"
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["accepted_readings"] == 2
    (batch,) = platform.ingestion.seen
    assert list(batch.frames[0].metrics) == ["a", "on"]
    assert list(batch.frames[0].values) == [1.5, 1.0]
    assert list(batch.frames[0].time_unix_us) == [1_795_342_500_000_000]
    result = online("publish", "d-2", "a=1")
    assert result.exit_code == 4
    assert "DEVICE_UNKNOWN" in result.stderr
    assert "--create" in result.stderr


def test_simulate(online, platform):
    result = online("simulate", "-n", "3", "--rate", "1000", "--duration", "300ms", "-o", "json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    accepted = sum(len(frame.values) for batch in platform.ingestion.seen for frame in batch.frames)
    assert said["accepted_readings"] == accepted > 0
    assert sorted(platform.registry.devices) == ["sim-0001", "sim-0002", "sim-0003"]


def test_query_in_all_its_ways(online):
    assert json.loads(online("query", "-o", "json").stdout) == [
        {
            "device": "d-1",
            "metric": "a",
            "time": "1970-01-01T00:00:09Z",
            "age": pytest.approx(1.8e9, rel=0.2),
            "value": 9.0,
        }
    ]
    looked = online("query", "d-1", "--start", "1970-01-01", "--end", "1970-01-02").stdout
    assert "a  9" in looked
    assert "min 2" in looked
    for command in (("query", "d-1", "b"), ("query", "d-1,d-2", "b")):
        nothing = online(*command)
        assert (nothing.exit_code, nothing.stdout) == (0, "")
        assert "no readings of b" in nothing.stderr
        assert nothing.stderr.endswith(": a.\n")
    late = online("query", "d-1", "--start", "1970-01-02")
    assert "since 1970-01-02T00:00:00Z; its newest is of 1970-01-01T00:00:09Z" in late.stderr
    rows = json.loads(online("query", "d-1", "--rows", "--limit", "3", "-o", "json").stdout)
    assert rows["rows"] == [
        {"time": "1970-01-01T00:00:00Z", "a": 0.0},
        {"time": "1970-01-01T00:00:01Z"},
        {"time": "1970-01-01T00:00:02Z", "a": 2.0},
    ]
    assert online("query", "d-1", "--rows", "-o", "csv").stdout.splitlines()[:3] == [
        "time,a",
        "1970-01-01T00:00:00Z,0.0",
        "1970-01-01T00:00:01Z,",
    ]
    buckets = json.loads(online("query", "d-1", "-a", "avg,max", "--every", "5s", "-o", "json").stdout)
    assert buckets[1] == {
        "device": "d-1",
        "metric": "a",
        "time": "1970-01-01T00:00:05Z",
        "avg": 7.0,
        "max": 7.0,
        "tier": "raw",
    }
    assert "d-1" in online("query", "--series").stdout
    fleet = ("query", "--filter", "type = pump", "--aggregate", "p95", "--group-by", "labels.site")
    assert json.loads(online(*fleet, "-o", "json").stdout)[0] == {
        "group": "site of type = pump",
        "metric": "a",
        "p95": 2.0,
        "tier": "raw",
    }
    assert "SITE" in online(*fleet).stdout
    assert "P95" in online(*fleet).stdout


def test_status_is_1_when_the_ledger_does_not_add_up(online, platform):
    result = online("status", "-o", "json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert [one["status"] for one in said["services"]] == ["SERVING"] * 3
    assert said["ledger"]["difference_readings"] == 0
    assert said["tenants"][0]["accepted_readings"] == 12_345
    platform.storage.difference = 5
    assert online("status").exit_code == 1
    result = online("ledger", "show")
    assert result.exit_code == 1
    assert "Difference 5" in result.stdout
    platform.registry.addresses["routing"] = "127.0.0.1:1"
    platform.storage.difference = 0
    result = online("status")
    assert result.exit_code == 1
    assert "UNREACHABLE" in result.stdout


def test_with_json_a_failure_is_an_object_on_standard_error(online, tidewire, monkeypatch):
    result = online("device", "get", "nope", "--output", "json")
    assert result.stdout == ""
    assert json.loads(result.stderr) == {
        "reason": "NOT_FOUND",
        "message": "tenants/demo/devices/nope does not exist",
        "exit_code": 4,
    }
    assert result.exit_code == 4
    monkeypatch.setenv("TIDEWIRE_TOKEN", "x")
    monkeypatch.setattr("tidewire_cli.session.RETRY_SECONDS", 0.0)
    result = tidewire("device", "list", "--endpoint", "127.0.0.1:1", "--tenant", "demo", "--output", "json")
    told = json.loads(result.stderr)
    assert (result.exit_code, told["exit_code"]) == (3, 3)
    assert told["message"].startswith("cannot reach registry")
    missing = online("import", "none.csv", "--output", "json")
    assert json.loads(missing.stderr)["exit_code"] == missing.exit_code == 2


def test_a_value_beyond_all_numbers_is_told_from_what_is_none(online):
    for text, why in (("1e400", "is not finite"), ("-inf", "is not finite"), ("lots", "is not a number")):
        result = online("publish", "d-1", f"x={text}")
        assert result.exit_code == 2
        assert why in result.stderr


def test_without_a_cluster_one_sentence_says_so(tidewire, monkeypatch, tmp_path):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    result = tidewire("k8s", "check")
    assert result.exit_code == 2, result.output
    assert ".;" not in result.stderr
    assert "set KUBECONFIG" in result.stderr
