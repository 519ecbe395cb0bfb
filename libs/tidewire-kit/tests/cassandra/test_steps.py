from pathlib import Path

import pytest

from tidewire_kit.cassandra.steps import MANIFEST, SchemaSet, split, write_manifest
from tidewire_kit.errors import TidewireError

FIRST = "CREATE TABLE IF NOT EXISTS demo_a (k text PRIMARY KEY) WITH comment = 'a;b--c';\n"


def _directory(tmp_path: Path, **steps: str) -> Path:
    for name, text in steps.items():
        (tmp_path / f"{name[1:]}.cql").write_text(text)
    write_manifest(tmp_path)
    return tmp_path


def test_a_text_is_split_at_semicolons_outside_of_quotes_and_comments() -> None:
    text = """
    -- one; two
    SELECT 'it''s; not -- the end' FROM a; // three;
    /* four;
       five */ SELECT "a;b"
      FROM c
    """
    assert list(split(text)) == ["SELECT 'it''s; not -- the end' FROM a", 'SELECT "a;b" FROM c']


def test_steps_come_in_order_with_their_checksums(tmp_path: Path) -> None:
    directory = _directory(tmp_path, s0002_b="DROP TABLE IF EXISTS demo_a;", s0001_a=FIRST)
    steps = SchemaSet("demo", directory).steps()
    assert [step.title for step in steps] == ["demo 0001_a", "demo 0002_b"]
    assert steps[0].statements == (
        "CREATE TABLE IF NOT EXISTS demo_a (k text PRIMARY KEY) WITH comment = 'a;b--c'",
    )
    assert len({step.checksum for step in steps}) == 2


def test_a_step_that_changed_is_refused_here_and_by_the_manifest(tmp_path: Path) -> None:
    directory = _directory(tmp_path, s0001_a=FIRST)
    (directory / "0001_a.cql").write_text(FIRST.replace("text", "blob"))
    with pytest.raises(TidewireError, match="has changed"):
        SchemaSet("demo", directory).steps()
    with pytest.raises(TidewireError, match="add another step"):
        write_manifest(directory)


def test_a_step_that_is_not_listed_or_is_gone_is_refused(tmp_path: Path) -> None:
    directory = _directory(tmp_path, s0001_a=FIRST)
    (directory / "0002_b.cql").write_text("DROP TABLE IF EXISTS demo_a;")
    with pytest.raises(TidewireError, match=f"is not in {MANIFEST}"):
        SchemaSet("demo", directory).steps()
    write_manifest(directory)
    assert len(SchemaSet("demo", directory).steps()) == 2
    (directory / "0002_b.cql").unlink()
    with pytest.raises(TidewireError, match=r"0002_b\.cql is in MANIFEST and not there"):
        SchemaSet("demo", directory).steps()


def test_numbers_have_no_gap(tmp_path: Path) -> None:
    with pytest.raises(TidewireError, match="without a gap"):
        SchemaSet("demo", _directory(tmp_path, s0001_a=FIRST, s0003_b=FIRST)).steps()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE demo_a (k text PRIMARY KEY)",
        "ALTER TABLE demo_a ADD v int",
        "DROP TABLE demo_a",
        "INSERT INTO demo_a (k) VALUES ('a')",
        "CREATE KEYSPACE IF NOT EXISTS x",
    ],
)
def test_a_statement_that_cannot_be_repeated_is_refused(tmp_path: Path, statement: str) -> None:
    with pytest.raises(TidewireError, match="not repeatable"):
        SchemaSet("demo", _directory(tmp_path, s0001_a=statement)).steps()


@pytest.mark.parametrize("table", ["other_a", "keyspace.demo_a", '"demo_a"'])
def test_a_table_of_others_is_refused(tmp_path: Path, table: str) -> None:
    statement = f"CREATE TABLE IF NOT EXISTS {table} (k text PRIMARY KEY)"
    with pytest.raises(TidewireError, match="does not begin with demo_"):
        SchemaSet("demo", _directory(tmp_path, s0001_a=statement)).steps()
