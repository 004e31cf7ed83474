"""What a database that answers is like: its revision, the rights of this role in it, and whether it takes changes."""

from dataclasses import dataclass
from typing import LiteralString

from app.database.connection import Connection
from app.database.migrations import read_revision

# What is this project's in the schema `public`, which others may use too.
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
OWN_SCHEMAS = ("library", "pipeline", "search")

# Triggers need no right to their functions. The sequence of a serial belongs to its table ('a'), and needs a right of
# its own.
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
class Condition:
    """What a database and this role's rights in it are like. Without `has_rights` no table can be used at all.

    `revision` is None where it was never migrated, or may not be read; `closed_schemas` are those where a right lacks.
    """

    is_read_only: bool
    has_rights: bool
    closed_schemas: tuple[str, ...]
    revision: str | None

    @property
    def missing_rights(self) -> str:
        """Return one sentence that says what to grant, or nothing where nothing lacks."""
        if not self.closed_schemas:
            return ""
        schemas = ", ".join(self.closed_schemas)
        return (
            f"The role of DATABASE_URL lacks rights in {schemas}: grant it USAGE on the schema and the sequences, "
            "SELECT, INSERT, UPDATE and DELETE on the tables, EXECUTE on the functions"
        )


async def read_condition(conn: Connection) -> Condition:
    """Look at the database. It needs no right in it."""
    wanted = {
        "schemas": list(OWN_SCHEMAS),
        "tables": [*PUBLIC_TABLES, "alembic_version"],
        "functions": list(PUBLIC_FUNCTIONS),
    }
    is_read_only, has_rights, closed = await anext(await conn.execute(_READ_CONDITION, wanted))
    revision = None if "public" in closed else await read_revision(conn)
    return Condition(is_read_only, has_rights, tuple(closed), revision)
