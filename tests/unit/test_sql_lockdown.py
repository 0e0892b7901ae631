"""What SQL cannot reach: files, the network, settings, extensions, the catalogue. Asked of us and of DuckDB itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from tailrace.sql import Database, DatabaseLimits, SqlError


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    with Database(DatabaseLimits(threads=1)) as database:
        database.register("leads", pa.table({"id": [1, 2]}))
        yield database


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that nobody may read."""
    path = tmp_path / "secret.csv"
    path.write_text("a,b\n1,2\n")
    return path


REFUSED = [
    "select * from read_csv('{path}')",
    "select * from read_csv_auto('{path}')",
    "select * from read_text('{path}')",
    "select * from read_blob('{path}')",
    "select * from read_parquet('{path}')",
    "select * from read_json('{path}')",
    "select * from parquet_metadata('{path}')",
    "select * from sniff_csv('{path}')",
    "select * from glob('{folder}/*')",
    "select * from '{path}'",
    'select * from "{path}"',
    "select * from 'https://example.com/x.parquet'",
    "select * from 's3://bucket/x.parquet'",
    "select getenv('HOME')",
    "select current_setting('secret_directory')",
    "select * from duckdb_settings()",
    "select * from duckdb_secrets()",
    "select * from duckdb_extensions()",
    "select * from duckdb_tables()",
    "select * from duckdb_logs",
    "select * from pragma_database_list",
    "select * from pragma_version()",
    "select * from which_secret('x', 's3')",
    "select * from information_schema.tables",
    "select * from pg_catalog.pg_class",
    "select * from pg_class",
    "select * from sqlite_master",
    "select * from query('select 1')",
    "select * from query_table('leads')",
    "select pg_read_file('{path}')",
    "select pg_catalog.now()",
    "select nextval('x')",
    "select write_log('x')",
    "select error('x')",
    'select * from "arrow:leads"',
    "copy leads to '{path}'",
    "copy leads from '{path}'",
    "attach '{path}' as x",
    "detach memory",
    "install httpfs",
    "load httpfs",
    "pragma database_list",
    "set memory_limit = '1TB'",
    "reset memory_limit",
    "export database '{folder}'",
    "import database '{folder}'",
    "create table x (a int)",
    "create view x as select 1",
    "create macro f(x) as x",
    "create secret s (type s3)",
    "drop table leads",
    "alter table leads add column x int",
    "call pragma_version()",
    "checkpoint",
    "vacuum",
    "explain analyze select 1",
    "use memory",
    "select * into x from leads",
    "select 1; select 2",
    "select * from leads; drop table leads",
    "with x as (delete from leads returning *) select * from x",
    "grant all on leads to public",
    "do $$ begin end $$",
    "prepare p as select 1",
    "execute p",
    "listen x",
    "begin",
    "lock table leads",
]


@pytest.mark.parametrize("sql", REFUSED)
def test_our_sql_refuses(database: Database, secret: Path, sql: str) -> None:
    """Each is refused with an error of ours, before or by DuckDB, and the table is still there."""
    with pytest.raises(SqlError):
        database.query(sql.format(path=secret, folder=secret.parent))
    assert database.query("select * from leads").num_rows == 2
    assert [path.name for path in secret.parent.iterdir()] == ["secret.csv"]


LOCKED = [
    "SELECT * FROM read_csv('{path}')",
    "SELECT * FROM read_text('{path}')",
    "SELECT * FROM '{path}'",
    "SELECT * FROM glob('{folder}/*')",
    "SELECT * FROM 'https://example.com/x.parquet'",
    "COPY (SELECT 1) TO '{folder}/out.csv'",
    "ATTACH '{folder}/x.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "EXPORT DATABASE '{folder}/out'",
    "SET memory_limit = '1GB'",
    "SET threads = 8",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET temp_directory = '{folder}'",
    "SET allowed_directories = ['/']",
    "RESET enable_external_access",
    "PRAGMA enable_logging",
    "SET python_enable_replacements = true",
]


@pytest.mark.parametrize("sql", LOCKED)
def test_duckdb_itself_is_locked(database: Database, secret: Path, sql: str) -> None:
    """Should a statement ever get past our translation, it finds a closed door."""
    with pytest.raises(duckdb.Error):
        database._connection.execute(sql.format(path=secret, folder=secret.parent)).fetchall()
    assert [path.name for path in secret.parent.iterdir()] == ["secret.csv"]


def test_duckdb_knows_no_path_of_this_machine(database: Database) -> None:
    """Settings hold no home directory, which even `duckdb_settings()` could otherwise tell."""
    values = [str(row[0]) for row in database._connection.execute("SELECT value FROM duckdb_settings()").fetchall()]
    home = str(Path.home())
    assert [value for value in values if home in value or str(Path.cwd()) in value] == []


def test_python_variables_are_no_tables(database: Database) -> None:
    """DuckDB's Python client would find `local_rows` in the calling frame."""
    local_rows = pa.table({"a": [1]})
    with pytest.raises(SqlError, match='relation "local_rows" does not exist'):
        database.query("select * from local_rows")
    with pytest.raises(duckdb.Error):
        database._connection.execute("SELECT * FROM local_rows")
    assert local_rows.num_rows == 1


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A query over the limit fails with an error of ours; without a temporary directory nothing is written."""
    limits = DatabaseLimits(memory_bytes_max=32 << 20, threads=1)
    with Database(limits) as database, pytest.raises(SqlError):
        database.query(
            "select array_agg(a || 'some longer text to fill the memory' || b) from generate_series(1, 3000) a, generate_series(1, 3000) b"
        )
    assert list(tmp_path.iterdir()) == []


def test_large_queries_spill_where_they_may(tmp_path: Path) -> None:
    """With a temporary directory the same kind of query goes beyond memory and leaves nothing behind."""
    limits = DatabaseLimits(memory_bytes_max=48 << 20, threads=1, temp_directory=tmp_path / "spill")
    with Database(limits) as database:
        table = database.query(
            "select count(*) from (select a, b, md5((a * 10000 + b)::text) as h from generate_series(1, 700) a, "
            "generate_series(1, 1000) b order by h) q"
        )
    assert table.column(0).to_pylist() == [700_000]
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_long_query_can_be_interrupted(database: Database) -> None:
    """A run that hits its time limit ends the query, and the database goes on."""
    done = threading.Event()

    def interrupt() -> None:
        while not done.wait(0.01):  # again and again: one that comes before the query begins is lost
            database.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(SqlError, match=r"(?i)interrupt"):
            database.query("select count(*) from generate_series(1, 30000) a, generate_series(1, 30000) b where a <> b")
    finally:
        done.set()
        thread.join()
    assert database.query("select 1").num_rows == 1


def test_nested_too_deeply_is_an_error_of_ours(database: Database) -> None:
    with pytest.raises(SqlError):
        database.query("select " + "(" * 1500 + "1" + ")" * 1500)
    with pytest.raises(SqlError, match="too deeply"):
        database.query("select " + "1 + " * 2000 + "1")
    where = " or ".join(f"id = {number}" for number in range(2000))  # long, not deep
    assert database.query(f"select * from leads where {where}").num_rows == 2
    with pytest.raises(SqlError, match="over the limit"):
        database.query("select '" + "x" * 1_100_000 + "'")
