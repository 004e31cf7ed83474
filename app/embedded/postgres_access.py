"""Who may connect to an embedded PostgreSQL, and as whom: one role, which is no superuser and owns every database."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable

ROLE = "videomoments"
SUPERUSER = "postgres"  # of initdb, which only single-user mode becomes

_SCRAM_ITERATIONS = 4096
_SCRAM_SALT_BYTES = 16

# It may make databases, for tests, checks and restores. Everything else is what its objects need.
_ROLE = """
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
        CREATE ROLE {role};
    END IF;
END
$$;

ALTER ROLE {role} LOGIN CREATEDB NOSUPERUSER NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD '{verifier}';

ALTER ROLE {superuser} PASSWORD {superusers};

DO $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT datname FROM pg_database WHERE NOT datistemplate AND datdba = {superuser_oid} LOOP
        EXECUTE format('ALTER DATABASE %I OWNER TO {role}', name);
    END LOOP;
END
$$;

SELECT encode(convert_to(datname, 'UTF8'), 'hex') AS {column}
FROM pg_database WHERE NOT datistemplate AND datconnlimit <> -2;

"""

# What CREATE made for the superuser, and what is not part of PostgreSQL or of an extension. What belongs to a column
# or a table follows that. Subscriptions, event triggers and foreign-data wrappers must stay a superuser's.
_OBJECTS = """
DO $$
DECLARE
    object record;
BEGIN
    FOR object IN
        SELECT replace(type, 'statistics object', 'statistics') AS type, identity
        FROM (
            SELECT 'pg_namespace'::regclass AS class, oid, '' AS kind FROM pg_namespace
            WHERE nspowner = {superuser_oid} AND nspname NOT LIKE 'pg\\_%'
            UNION ALL SELECT 'pg_class'::regclass, oid, relkind FROM pg_class
            WHERE relowner = {superuser_oid} AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND relpersistence <> 't'
            UNION ALL SELECT 'pg_proc'::regclass, oid, '' FROM pg_proc WHERE proowner = {superuser_oid}
            UNION ALL SELECT 'pg_type'::regclass, oid, '' FROM pg_type WHERE typowner = {superuser_oid}
            UNION ALL SELECT 'pg_collation'::regclass, oid, '' FROM pg_collation WHERE collowner = {superuser_oid}
            UNION ALL SELECT 'pg_conversion'::regclass, oid, '' FROM pg_conversion WHERE conowner = {superuser_oid}
            UNION ALL SELECT 'pg_operator'::regclass, oid, '' FROM pg_operator WHERE oprowner = {superuser_oid}
            UNION ALL SELECT 'pg_opfamily'::regclass, oid, '' FROM pg_opfamily WHERE opfowner = {superuser_oid}
            UNION ALL SELECT 'pg_opclass'::regclass, oid, '' FROM pg_opclass WHERE opcowner = {superuser_oid}
            UNION ALL SELECT 'pg_ts_config'::regclass, oid, '' FROM pg_ts_config WHERE cfgowner = {superuser_oid}
            UNION ALL SELECT 'pg_ts_dict'::regclass, oid, '' FROM pg_ts_dict WHERE dictowner = {superuser_oid}
            UNION ALL SELECT 'pg_statistic_ext'::regclass, oid, '' FROM pg_statistic_ext
            WHERE stxowner = {superuser_oid}
            UNION ALL SELECT 'pg_publication'::regclass, oid, '' FROM pg_publication WHERE pubowner = {superuser_oid}
            UNION ALL SELECT 'pg_largeobject'::regclass, oid, '' FROM pg_largeobject_metadata
            WHERE lomowner = {superuser_oid}
        ) owned
        CROSS JOIN LATERAL pg_identify_object(class, oid, 0)
        WHERE (oid >= {first_oid} OR type = 'large object') AND NOT EXISTS (
            SELECT FROM pg_depend
            WHERE classid = class AND objid = oid AND objsubid = 0
              AND (deptype IN ('e', 'i') OR deptype = 'a' AND kind = 'S')
        )
    LOOP
        EXECUTE format('ALTER %s %s OWNER TO {role}', object.type, object.identity);
    END LOOP;
END
$$;

"""

_SUPERUSER_OID = 10  # BOOTSTRAP_SUPERUSERID of PostgreSQL
_FIRST_OID = 16384  # FirstNormalObjectId: smaller ones are PostgreSQL's own
_COLUMN = "videomoments_database"


def host_based_access(password: str, *, superuser: bool) -> str:
    """Return `pg_hba.conf`. It names the password by its hash, so that another one is seen to need `role_script`."""
    who = "all" if superuser else ROLE
    return (
        "# Written at the start of the embedded PostgreSQL: only its own role may connect.\n"
        f"# password {hashlib.sha256(password.encode()).hexdigest()}\n"
        f"local all {who} scram-sha-256\n"
        f"host all {who} 127.0.0.1/32 scram-sha-256\n"
    )


def role_script(password: str, *, superuser: bool) -> str:
    """Return what makes the role, sets its password and gives it the databases; it prints `list_databases`' input."""
    return _ROLE.format(
        role=ROLE,
        superuser=SUPERUSER,
        superuser_oid=_SUPERUSER_OID,
        verifier=_scram_verifier(password),
        superusers=f"'{_scram_verifier(password)}'" if superuser else "NULL",
        column=_COLUMN,
    )


def objects_script() -> str:
    """Return what gives the role everything that the superuser has created in a database."""
    return _OBJECTS.format(role=ROLE, superuser_oid=_SUPERUSER_OID, first_oid=_FIRST_OID)


def list_databases(output: Iterable[str]) -> list[str]:
    """Return the names of databases in what single-user mode has printed."""
    found = (line.partition(f"{_COLUMN} = ")[2].split('"') for line in output)
    return [bytes.fromhex(words[1]).decode() for words in found if len(words) > 1]


def _scram_verifier(password: str) -> str:
    """Return what PostgreSQL stores of a password (RFC 5803), so that no log of a statement shows it."""
    salt = secrets.token_bytes(_SCRAM_SALT_BYTES)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _SCRAM_ITERATIONS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    salt_text, stored, served = (base64.b64encode(part).decode() for part in (salt, stored_key, server_key))
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{salt_text}${stored}:{served}"
