"""The session settings that this code depends on, pinned whatever the role, the database and the address set."""

from collections.abc import Mapping
from typing import Any, LiteralString

PINNED: Mapping[str, str] = {
    "search_path": "public",
    "client_encoding": "UTF8",
    "TimeZone": "UTC",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "quote_all_identifiers": "off",
    "default_transaction_isolation": "read committed",
    "session_replication_role": "origin",  # with `replica` no trigger fires and no foreign key is checked
    "gin_fuzzy_search_limit": "0",
}

# A PgBouncer sets these on whatever server connection a client gets; any other one would stay behind for the next
# client. https://www.pgbouncer.org/features.html
_TRACKED_BY_POOLERS = ("client_encoding", "TimeZone", "DateStyle", "standard_conforming_strings")

# A pooler makes up the process id that a client gets when it connects.
PIN_SESSION: LiteralString = """
    SELECT pg_backend_pid() <> %(pid)s, (
        SELECT count(set_config(name, value, false))
        FROM unnest(%(names)s::text[], %(values)s::text[]) AS wanted (name, value)
        JOIN pg_settings USING (name)
        WHERE setting <> value AND (source <> 'client' OR name <> ALL (%(optional)s))
          AND (pg_backend_pid() = %(pid)s OR name = ANY (%(tracked)s))
    )
"""
"""Returns whether a pooler is in between, and sets what can be set for a session. Some settings may not exist."""

PIN_TRANSACTION: LiteralString = """
    SELECT count(set_config(name, value, true))
    FROM unnest(%(names)s::text[], %(values)s::text[]) AS wanted (name, value)
    JOIN pg_settings USING (name)
    WHERE setting <> value
"""

# Through a pooler a transaction has what a new session of the role has, so it is looked at instead.
FIND_UNSUITABLE: LiteralString = """
    SELECT name, value
    FROM unnest(%(names)s::text[], %(values)s::text[]) AS wanted (name, value)
    JOIN pg_settings USING (name)
    WHERE name <> ALL (%(tracked)s) AND CASE name
        WHEN 'search_path' THEN 'public' <> ALL (current_schemas(false)) OR EXISTS (
            SELECT FROM pg_class
            WHERE relnamespace = to_regnamespace('public') AND relkind IN ('r', 'p', 'v')
              AND NOT pg_table_is_visible(oid)
        )
        WHEN 'extra_float_digits' THEN reset_val::int < 1
        ELSE reset_val <> value
    END
    ORDER BY name
"""
"""Runs in a transaction after `SET LOCAL search_path = DEFAULT`; returns the settings that the role has to have."""


def pin_parameters(
    backend_pid: int = 0, *, forced: Mapping[str, str] = {}, optional: Mapping[str, str] = {}
) -> dict[str, Any]:
    """Return the parameters of the statements above; where the address sets one of `optional`, that one wins."""
    settings = {**PINNED, **forced, **optional}
    return {
        "pid": backend_pid,
        "names": list(settings),
        "values": list(settings.values()),
        "optional": list(optional),
        "tracked": list(_TRACKED_BY_POOLERS),
    }


def describe_unsuitable(found: list[tuple[str, str]], user: str, database: str) -> str:
    """Return one sentence on settings that hold for every transaction through a pooler and must be others."""
    changes = ", ".join(f"{name} = '{value}'" for name, value in found)
    return (
        "behind a connection pooler the settings of the role hold and these are needed: "
        f"{changes}; set them with ALTER ROLE {user} IN DATABASE {database} SET"
    )
