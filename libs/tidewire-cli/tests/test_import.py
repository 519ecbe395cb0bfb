import json
from pathlib import Path

import pytest

from tidewire.ingestion.v1 import ingestion_pb2


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "plant.csv"
    lines = [
        f"2026-01-01T00:{minute:02d}:{second:02d}Z,{minute * 60 + second},1"
        for minute in range(60)
        for second in range(60)
    ]
    path.write_text("time,Flow (l/s),on\n" + "\n".join(lines) + "\n")
    return path


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr("tidewire_cli.importing.csv_source.BLOCK_BYTES", 10_000)


def values(batches):
    """Every reading of the first metric, as often as it was accepted."""
    return [
        value
        for batch in batches
        for frame in batch.frames
        for value in frame.values[: len(frame.time_unix_us)]
    ]


def test_a_file_is_imported_once(online, platform, file, small_blocks):
    result = online("import", str(file), "-o", "json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert (said["rows"], said["accepted_readings"], said["already_done"]) == (3600, 7200, False)
    assert values(platform.ingestion.accepted.values()) == [float(n) for n in range(3600)]
    assert list(platform.registry.devices) == ["plant"]
    seen = len(platform.ingestion.seen)
    again = json.loads(online("import", str(file), "-o", "json").stdout)
    assert (again["already_done"], again["rows"]) == (True, 0)
    copy = file.with_name("copy.csv")
    copy.write_bytes(file.read_bytes())
    assert json.loads(online("import", str(copy), "--device", "plant", "-o", "json").stdout)["already_done"]
    assert len(platform.ingestion.seen) == seen


def test_another_tenant_of_the_same_name_gets_it_too(online, platform, file):
    online("import", str(file))
    platform.registry.tenant_uid = "8" * 32
    assert not json.loads(online("import", str(file), "-o", "json").stdout)["already_done"]


def test_an_interrupted_import_goes_on_and_sends_nothing_under_another_id(
    online, platform, file, small_blocks
):
    platform.ingestion.break_after = 6
    result = online("import", str(file), "-o", "json")
    assert result.exit_code == 4
    assert "blocked" in result.stderr
    assert 0 < len(platform.ingestion.accepted) <= 6
    platform.ingestion.break_after = None
    result = online("import", str(file), "-o", "json")
    said = json.loads(result.stdout)
    assert said["resumed_rows"] > 0
    assert said["resumed_rows"] + said["rows"] == 3600
    assert values(platform.ingestion.accepted.values()) == [float(n) for n in range(3600)]
    ids = {}
    for batch in platform.ingestion.seen:
        assert ids.setdefault(batch.batch_id, batch) == batch


def test_a_shift_is_settled_once(online, platform, file, small_blocks):
    platform.ingestion.break_after = 6
    online("import", str(file), "--shift-to-now")
    platform.ingestion.break_after = None
    assert online("import", str(file), "--shift-to-now").exit_code == 0
    times = [
        moment for batch in platform.ingestion.accepted.values() for moment in batch.frames[0].time_unix_us
    ]
    assert times == list(range(times[0], times[0] + 3600 * 1_000_000, 1_000_000))
    import time

    assert -60 < times[-1] / 1e6 - time.time() <= 0


def test_refused_and_unreadable_rows_are_told_by_line(online, platform, file):
    text = file.read_text().splitlines()
    text[10] = text[10].replace(",9,", ",broken,")
    file.write_text("\n".join(text))
    platform.ingestion.script.append(
        ingestion_pb2.Refusal(
            reason=ingestion_pb2.CLOCK_SKEW,
            frame=0,
            rows=2,
            readings=4,
            first_rows=[0, 3598],
            message="too far ahead",
        )
    )
    result = online("import", str(file), "-o", "json")
    assert result.exit_code == 4
    said = json.loads(result.stdout)
    assert said["refused_by_reason"] == {"CLOCK_SKEW": 4}
    assert sorted((one["line"], one["reason"]) for one in said["problems"]) == [
        (2, "CLOCK_SKEW"),
        (11, "UNREADABLE"),
        (3600, "CLOCK_SKEW"),
    ]
    shown = online("import", str(file), "--again")
    assert "'Flow (l/s)' is 'broken', not a number" in shown.stderr
    assert "Not stored: 1 rows or cells." in shown.stderr


def test_what_was_not_stored_is_told_by_the_run_that_comes_to_the_end(online, platform, file):
    from tidewire_cli.contexts import state_home

    text = file.read_text().splitlines()
    text[10] = text[10].replace(",9,", ",broken,")
    file.write_text("\n".join(text))
    refusal = ingestion_pb2.Refusal(
        reason=ingestion_pb2.CLOCK_SKEW, frame=0, rows=1, readings=2, first_rows=[3], message="too far ahead"
    )
    platform.ingestion.script.append(refusal)
    first = json.loads(online("import", str(file), "-o", "json").stdout)
    (kept,) = (state_home() / "imports").glob("*.json")
    # As a run leaves it that is killed after its last block and before its report.
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"finished_at": 0.0}))

    result = online("import", str(file), "-o", "json")

    assert result.exit_code == 4
    said = json.loads(result.stdout)
    assert (said["rows"], said["resumed_rows"]) == (0, 3600)
    told = ("refused_readings", "refused_by_reason", "unreadable", "problems")
    assert [said[name] for name in told] == [first[name] for name in told]
    assert len(said["problems"]) == 2


def test_what_a_quota_refused_is_sent_again_in_smaller_parts(online, platform, file, monkeypatch):
    over = ingestion_pb2.Refusal(
        reason=ingestion_pb2.QUOTA_TENANT,
        frame=0,
        rows=3000,
        readings=6000,
        first_rows=list(range(10)),
        message="slow",
    )
    platform.ingestion.script.append(over)
    monkeypatch.setattr("tidewire_cli.importing.run.QUOTA_WAIT_SECONDS", 0.01)
    result = online("import", str(file), "-o", "json")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["accepted_readings"] == 7200
    first, *parts = platform.ingestion.seen
    assert values(parts) == values([first])
    assert [len(batch.frames[0].time_unix_us) for batch in parts] == [600] * 6
    assert first.batch_id not in {batch.batch_id for batch in parts}


def test_a_dry_run_shows_the_plan_and_does_nothing(online, platform, file):
    result = online("import", str(file), "--dry-run")
    assert "Flow (l/s)" in result.stderr
    said = json.loads(online("import", str(file), "--dry-run", "-o", "json").stdout)
    assert [one["metric"] for one in said["metrics"]] == ["flow", "on"]
    assert not platform.ingestion.seen


def test_a_naive_time_is_2_with_the_remedy(online, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("time,a\n2026-01-01 00:00,1\n")
    result = online("import", str(path))
    assert result.exit_code == 2
    assert "--timezone UTC" in result.stderr


def test_devices_of_a_column_are_created_and_each_gets_its_rows(online, platform, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(
        "time,device,a\n" + "".join(f"2026-01-01T00:00:{n:02d}Z,d{n % 3},{n}\n" for n in range(30))
    )
    assert online("import", str(path)).exit_code == 0
    assert sorted(platform.registry.devices) == ["d0", "d1", "d2"]
    (batch,) = platform.ingestion.accepted.values()
    rows = {
        (batch.devices[i], value)
        for i, value in zip(batch.frames[0].device_index, batch.frames[0].values, strict=True)
    }
    assert rows == {(f"d{n % 3}", float(n)) for n in range(30)}
