"""PostgreSQL's catalogs: how a schema differs from db/schema.sql, the revision, and the rights of this role."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import Connection as SyncConnection
from psycopg import sql

from app.core.config import Settings
from app.core.errors import ConfigurationError
from app.database.connection import PIN_TRANSACTION, Connection, make_pinned_setting_parameters
from app.database.migrations import open_blocking_connection, read_alembic_revision

_SCHEMA = Path(__file__).resolve().parents[2] / "db" / "schema.sql"

OWN_SCHEMAS = ("library", "pipeline", "search")
_SCHEMAS = ("public", *OWN_SCHEMAS)

Catalog = dict[str, str]
"""Definitions by the name of the object: `{"column videos.title": "varchar(500)", "schema search": "", …}`."""

# Each returns name and definition. `others` are objects of extensions, and Alembic's table.
_QUERIES: tuple[LiteralString, ...] = (
    "SELECT 'schema ' || nspname, '' FROM pg_namespace WHERE nspname = ANY (%(schemas)s)",
    """
    SELECT CASE relkind WHEN 'S' THEN 'sequence ' WHEN 'v' THEN 'view ' WHEN 'm' THEN 'materialized view '
                        WHEN 'f' THEN 'foreign table ' ELSE 'table ' END || oid::regclass,
           concat_ws(', ', CASE relpersistence WHEN 'u' THEN 'unlogged' END,
                           CASE WHEN relrowsecurity THEN 'with row security' END,
                           CASE WHEN relforcerowsecurity THEN 'forced on its owner' END,
                           CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(oid) END)
    FROM pg_class
    WHERE relnamespace::regnamespace::text = ANY (%(schemas)s) AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
      AND oid <> ALL (%(others)s)
    """,
    """
    SELECT 'column ' || attrelid::regclass || '.' || attname,
           concat_ws(' ', replace(format_type(atttypid, atttypmod), 'character varying', 'varchar'),
                          CASE WHEN attcollation <> typcollation THEN 'collate ' || attcollation::regcollation END,
                          CASE WHEN attnotnull THEN 'not null' END,
                          CASE attidentity WHEN 'a' THEN 'identity always' WHEN 'd' THEN 'identity' END,
                          CASE WHEN attgenerated <> '' THEN 'generated' ELSE 'default' END
                              || ' ' || pg_get_expr(adbin, adrelid))
    FROM pg_attribute
    JOIN pg_class ON pg_class.oid = attrelid
    JOIN pg_type ON pg_type.oid = atttypid
    LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)
    WHERE relnamespace::regnamespace::text = ANY (%(schemas)s) AND relkind IN ('r', 'p', 'f')
      AND attnum > 0 AND NOT attisdropped AND attrelid <> ALL (%(others)s)
    """,
    """
    SELECT 'constraint ' || conname || ' on ' || conrelid::regclass, pg_get_constraintdef(oid)
    FROM pg_constraint
    WHERE connamespace::regnamespace::text = ANY (%(schemas)s) AND contype IN ('c', 'f', 'p', 'u', 'x')
      AND conrelid <> 0 AND conrelid <> ALL (%(others)s)
    """,
    """
    SELECT 'index ' || relname || ' on ' || indrelid::regclass,
           pg_get_indexdef(indexrelid) || CASE WHEN indisvalid THEN '' ELSE ' (invalid)' END
    FROM pg_index
    JOIN pg_class ON pg_class.oid = indexrelid
    WHERE relnamespace::regnamespace::text = ANY (%(schemas)s) AND indrelid <> ALL (%(others)s)
      AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u', 'x'))
    """,
    """
    SELECT 'function ' || oid::regprocedure, regexp_replace(pg_get_functiondef(oid), '[[:space:]]+', ' ', 'g')
    FROM pg_proc
    WHERE pronamespace::regnamespace::text = ANY (%(schemas)s) AND prokind IN ('f', 'p') AND oid <> ALL (%(others)s)
    """,
    """
    SELECT 'trigger ' || tgname || ' on ' || tgrelid::regclass,
           pg_get_triggerdef(pg_trigger.oid) || CASE tgenabled WHEN 'D' THEN ' (disabled)' ELSE '' END
    FROM pg_trigger
    JOIN pg_class ON pg_class.oid = tgrelid
    WHERE relnamespace::regnamespace::text = ANY (%(schemas)s) AND NOT tgisinternal AND tgrelid <> ALL (%(others)s)
    """,
    """
    SELECT 'rule ' || rulename || ' on ' || ev_class::regclass,
           pg_get_ruledef(pg_rewrite.oid) || CASE ev_enabled WHEN 'D' THEN ' (disabled)' ELSE '' END
    FROM pg_rewrite
    JOIN pg_class ON pg_class.oid = ev_class
    WHERE relnamespace::regnamespace::text = ANY (%(schemas)s) AND rulename <> '_RETURN'
      AND ev_class <> ALL (%(others)s)
    """,
    """
    SELECT 'policy ' || polname || ' on ' || polrelid::regclass,
           concat_ws(' ', CASE WHEN polpermissive THEN 'permissive' ELSE 'restrictive' END,
                          CASE polcmd WHEN 'r' THEN 'select' WHEN 'a' THEN 'insert' WHEN 'w' THEN 'update'
                                      WHEN 'd' THEN 'delete' ELSE 'all' END,
                          'to ' || (SELECT string_agg(CASE role WHEN 0 THEN 'public' ELSE role::regrole::text END, ', ')
                                    FROM unnest(polroles) role),
                          'using ' || pg_get_expr(polqual, polrelid),
                          'check ' || pg_get_expr(polwithcheck, polrelid))
    FROM pg_policy
    JOIN pg_class ON pg_class.oid = polrelid
    WHERE relnamespace::regnamespace::text = ANY (%(schemas)s) AND polrelid <> ALL (%(others)s)
    """,
    """
    SELECT CASE typtype WHEN 'd' THEN 'domain ' WHEN 'e' THEN 'enum ' ELSE 'type ' END || pg_type.oid::regtype,
           concat_ws(' ', CASE typtype WHEN 'd' THEN format_type(typbasetype, typtypmod) END,
                          CASE WHEN typnotnull THEN 'not null' END,
                          'default ' || typdefault,
                          (SELECT string_agg(pg_get_constraintdef(oid), ' ' ORDER BY conname) FROM pg_constraint
                           WHERE contypid = pg_type.oid AND contype = 'c'),
                          (SELECT string_agg(enumlabel, ', ' ORDER BY enumsortorder) FROM pg_enum
                           WHERE enumtypid = pg_type.oid))
    FROM pg_type
    LEFT JOIN pg_class ON pg_class.oid = typrelid
    WHERE typnamespace::regnamespace::text = ANY (%(schemas)s) AND pg_type.oid <> ALL (%(others)s)
      AND (typtype IN ('d', 'e', 'r') OR relkind = 'c')
    """,
)

# PostgreSQL may print an expression differently once it was restored from a dump: `x IN ('a', 'b')` of a varchar as a
# cast array, and then as an array of casts. These statements restore each object from its printed definition.
_RESTORE_QUERIES: tuple[LiteralString, ...] = (
    """
    SELECT format('ALTER TABLE %%s DROP CONSTRAINT %%I, ADD CONSTRAINT %%2$I %%3$s',
                  conrelid::regclass, conname, pg_get_constraintdef(oid))
    FROM pg_constraint
    WHERE connamespace::regnamespace::text = ANY (%(schemas)s) AND contype = 'c' AND conrelid <> 0
    """,
    """
    SELECT format('DROP INDEX %%s; %%s', indexrelid::regclass, pg_get_indexdef(indexrelid))
    FROM pg_index
    JOIN pg_class ON pg_class.oid = indexrelid
    WHERE relnamespace::regnamespace::text = ANY (%(schemas)s)
      AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
    """,
    """
    SELECT format('ALTER TABLE %%s ALTER %%I SET DEFAULT %%s', attrelid::regclass, attname, pg_get_expr(adbin, adrelid))
    FROM pg_attribute
    JOIN pg_class ON pg_class.oid = attrelid
    JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)
    WHERE relnamespace::regnamespace::text = ANY (%(schemas)s) AND relkind = 'r' AND attgenerated = ''
    """,
    """
    SELECT format('DROP TRIGGER %%I ON %%s; %%s', tgname, tgrelid::regclass, pg_get_triggerdef(pg_trigger.oid))
    FROM pg_trigger
    JOIN pg_class ON pg_class.oid = tgrelid
    WHERE relnamespace::regnamespace::text = ANY (%(schemas)s) AND NOT tgisinternal
    """,
)


# Names of objects that need an extension, which a server may not have.
_OPTIONAL_OBJECTS = {"pg_trgm": "idx_words_trigrams", "vector": "search.vectors"}


def list_schema_differences(settings: Settings) -> list[str]:
    """Return a line for each object of a database that differs from db/schema.sql.

    Raises `DatabaseUnavailable`, and `ConfigurationError` where the user may not create a scratch database.
    """
    parameters = settings.migration_parameters
    with open_blocking_connection(parameters, autocommit=True) as conn:
        found, extensions = read_catalog(conn), _list_extensions(conn)
        with (
            _scratch_database(conn) as name,
            open_blocking_connection(parameters | {"dbname": name}, autocommit=True) as scratch,
        ):
            create_schema(scratch)
            wanted, extensions = read_catalog(scratch), extensions & _list_extensions(scratch)
            _restore_from_definitions(scratch)
            restored = read_catalog(scratch)
    missing = [name for extension, name in _OPTIONAL_OBJECTS.items() if extension not in extensions]
    for name in [each for each in found.keys() | wanted.keys() if any(part in each for part in missing)]:
        found.pop(name, None)
        wanted.pop(name, None)
    for name in found.keys() & wanted.keys():
        if found[name] == restored[name]:  # printed as after restoring a dump
            found[name] = wanted[name]
    return describe_catalog_differences(found, wanted)


def _list_extensions(conn: SyncConnection[Any]) -> set[str]:
    return {str(name) for (name,) in conn.execute("SELECT extname FROM pg_extension")}


def create_schema(conn: SyncConnection[Any]) -> None:
    with conn.transaction():
        conn.execute(PIN_TRANSACTION, make_pinned_setting_parameters())
        conn.execute(_SCHEMA.read_bytes())


def _restore_from_definitions(conn: SyncConnection[Any]) -> None:
    """Create objects with expressions again from their printed definitions, as restoring a dump does."""
    with conn.transaction():
        conn.execute(PIN_TRANSACTION, make_pinned_setting_parameters())
        for query in _RESTORE_QUERIES:
            for (statements,) in conn.execute(query, {"schemas": list(_SCHEMAS)}).fetchall():
                conn.execute(statements)


def read_catalog(conn: SyncConnection[Any]) -> Catalog:
    """Return the definitions of all objects in the project's schemas, by kind and name."""
    with conn.transaction():
        # Pinned, so that objects in `public` are named without their schema.
        conn.execute(PIN_TRANSACTION, make_pinned_setting_parameters())
        others = conn.execute(
            """
            SELECT objid FROM pg_depend WHERE deptype = 'e'
            UNION ALL SELECT oid FROM pg_class WHERE oid = to_regclass('public.alembic_version')
            """
        ).fetchall()
        wanted = {"schemas": list(_SCHEMAS), "others": [oid for (oid,) in others]}
        return {name: text for query in _QUERIES for name, text in conn.execute(query, wanted)}


def describe_catalog_differences(found: Catalog, expected: Catalog) -> list[str]:
    return [
        line
        for name in sorted(found | expected)
        if (line := _describe_catalog_difference(name, found.get(name), expected.get(name)))
    ]


def _describe_catalog_difference(name: str, found: str | None, expected: str | None) -> str | None:
    if found == expected:
        return None
    if found is None:
        return f"{name} is missing"
    if expected is None:
        return f"{name} is not in the schema"
    return f"{name} is {found or 'plain'}, the schema has {expected or 'plain'}"


@contextmanager
def _scratch_database(conn: SyncConnection[Any]) -> Iterator[str]:
    """Yield the name of an empty database that is dropped after the block."""
    name = f"videomoments_check_{secrets.token_hex(8)}"
    statement = sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0")
    try:
        try:
            conn.execute(statement.format(sql.Identifier(name)))
        except psycopg.errors.InsufficientPrivilege:
            raise ConfigurationError(
                f"The check builds db/schema.sql in a scratch database, and {conn.info.user} may not create databases"
            ) from None
        yield name
    finally:
        conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


# The project's objects in the schema `public`, which other projects may use too.
PUBLIC_TABLES = (
    "videos",
    "transcripts",
    "prompts",
    "generation_configs",
    "moments",
    "clips",
    "thumbnails",
    "pipeline_history",
)
PUBLIC_FUNCTIONS = ("moments_add_if_free", "videos_end")

# Trigger functions need no privilege. The sequence of a serial depends on its table ('a') and needs its own privilege.
_READ_CONDITION: LiteralString = """
    WITH needed (schema, is_table, is_allowed) AS (
        SELECT nspname, false, has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = 'public'
        UNION ALL
        SELECT nspname, true, has_schema_privilege(nspname, 'USAGE')
               AND has_table_privilege(pg_class.oid, 'SELECT')
               AND (
                   relname = 'alembic_version' OR relkind IN ('v', 'm')
                   OR has_table_privilege(pg_class.oid, 'INSERT')
                  AND has_table_privilege(pg_class.oid, 'UPDATE')
                  AND has_table_privilege(pg_class.oid, 'DELETE')
               )
               AND NOT EXISTS (
                   SELECT FROM pg_depend JOIN pg_class AS sequence ON sequence.oid = objid
                   WHERE refobjid = pg_class.oid AND deptype = 'a'
                     AND CASE sequence.relkind WHEN 'S' THEN NOT has_sequence_privilege(objid, 'USAGE') END
               )
        FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE relkind IN ('r', 'p', 'v', 'm')
          AND (nspname = ANY (%(schemas)s) OR nspname = 'public' AND relname = ANY (%(tables)s))
        UNION ALL
        SELECT nspname, false, has_schema_privilege(nspname, 'USAGE') AND has_function_privilege(pg_proc.oid, 'EXECUTE')
        FROM pg_proc JOIN pg_namespace ON pg_namespace.oid = pronamespace
        WHERE prorettype <> 'trigger'::regtype
          AND (nspname = ANY (%(schemas)s) OR nspname = 'public' AND proname = ANY (%(functions)s))
    )
    SELECT current_setting('transaction_read_only') = 'on',
           coalesce(bool_or(is_allowed) FILTER (WHERE is_table), true),
           coalesce(array_agg(DISTINCT schema ORDER BY schema) FILTER (WHERE NOT is_allowed), '{}')::text[]
    FROM needed
"""


@dataclass(frozen=True, slots=True)
class DatabaseCondition:
    """The revision of a database, None where unknown, and whether the connected role may read and write all of it."""

    is_read_only: bool
    has_rights: bool
    closed_schemas: tuple[str, ...]
    revision: str | None

    @property
    def missing_rights_sentence(self) -> str:
        if not self.closed_schemas:
            return ""
        schemas = ", ".join(self.closed_schemas)
        return (
            f"The role of DATABASE_URL lacks rights in {schemas}: grant it USAGE on the schema and the sequences, "
            "SELECT, INSERT, UPDATE and DELETE on the tables, EXECUTE on the functions"
        )


async def read_database_condition(conn: Connection) -> DatabaseCondition:
    wanted = {
        "schemas": list(OWN_SCHEMAS),
        "tables": [*PUBLIC_TABLES, "alembic_version"],
        "functions": list(PUBLIC_FUNCTIONS),
    }
    is_read_only, has_rights, closed = await anext(await conn.execute(_READ_CONDITION, wanted))
    revision = None if "public" in closed else await read_alembic_revision(conn)
    return DatabaseCondition(is_read_only, has_rights, tuple(closed), revision)
