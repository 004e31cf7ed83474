"""An embedded PostgreSQL: its data folder, its roles and its access rules."""

import base64
import hashlib
import hmac
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from app.embedded.binaries import POSTGRES
from app.embedded.data_folder import EmbeddedError, make_private_folder, write_private_file
from app.embedded.process import (
    end_process,
    is_root,
    require_passwd_entry,
    summarize_log_failure,
)
from app.embedded.server import EmbeddedServer

ROLE = "videomoments"
SUPERUSER = "postgres"  # of initdb, which only single-user mode becomes

_SCRAM_ITERATIONS = 4096
_SCRAM_SALT_BYTES = 16

# The role may create databases, for tests, checks and restores.
_ROLE_SCRIPT = """
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
_OBJECTS_SCRIPT = """
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
_DATABASE_COLUMN = "videomoments_database"


def make_pg_hba_conf(password: str, *, superuser: bool) -> str:
    """Return `pg_hba.conf`. It has the hash of the password, to detect a changed one."""
    who = "all" if superuser else ROLE
    return (
        "# Written at the start of the embedded PostgreSQL: only its own role may connect.\n"
        f"# password {hashlib.sha256(password.encode()).hexdigest()}\n"
        f"local all {who} scram-sha-256\n"
        f"host all {who} 127.0.0.1/32 scram-sha-256\n"
    )


def make_role_script(password: str, *, superuser: bool) -> str:
    """Return the SQL that creates the role, sets its password, gives it the databases and lists them."""
    return _ROLE_SCRIPT.format(
        role=ROLE,
        superuser=SUPERUSER,
        superuser_oid=_SUPERUSER_OID,
        verifier=_make_scram_verifier(password),
        superusers=f"'{_make_scram_verifier(password)}'" if superuser else "NULL",
        column=_DATABASE_COLUMN,
    )


def make_ownership_script() -> str:
    return _OBJECTS_SCRIPT.format(role=ROLE, superuser_oid=_SUPERUSER_OID, first_oid=_FIRST_OID)


def parse_database_names(output: Iterable[str]) -> list[str]:
    found = (line.partition(f"{_DATABASE_COLUMN} = ")[2].split('"') for line in output)
    return [bytes.fromhex(words[1]).decode() for words in found if len(words) > 1]


def _make_scram_verifier(password: str) -> str:
    """Return the SCRAM verifier of a password (RFC 5803), so that no log shows the password."""
    salt = secrets.token_bytes(_SCRAM_SALT_BYTES)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _SCRAM_ITERATIONS)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    salt_text, stored, served = (base64.b64encode(part).decode() for part in (salt, stored_key, server_key))
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{salt_text}${stored}:{served}"


# PostgreSQL's own C.UTF-8, which is the same on every platform: macOS has none.
_LOCALE = ("-E", "UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C")
_INITDB = ("-U", SUPERUSER, "-A", "reject", *_LOCALE, "--no-instructions")
_ACCESS_FILE = "pg_hba.conf"
_EXTENSIONS_FOLDER = "trusted_extensions"
_PORT_OF_SOCKETS = 5432  # part of their name
_SINGLE_USER = ("--single", "-j", "-c", "exit_on_error=on")


class EmbeddedPostgres(EmbeddedServer):
    """A PostgreSQL server with one role that may connect, which is no superuser; `settings` are options as of `-c`.

    With `superuser` every role may connect that has a password, and `superuser_url` is there: for tests.
    """

    wheel = POSTGRES
    marker = "PG_VERSION"
    socket_name = f".s.PGSQL.{_PORT_OF_SOCKETS}"

    def __init__(
        self,
        data_dir: Path,
        port: int | None = None,
        settings: Mapping[str, str] = {},
        *,
        superuser: bool = False,
        wait_seconds: float = 5.0,
    ) -> None:
        super().__init__(data_dir, port, wait_seconds=wait_seconds)
        self._settings = dict(settings)
        self._superuser = superuser

    @property
    def url(self) -> str:
        return self.database_url("postgres")

    @property
    def superuser_url(self) -> str:
        return self._make_url(SUPERUSER, "postgres")

    def database_url(self, name: str) -> str:
        return self._make_url(ROLE, name)

    def _make_url(self, user: str, name: str) -> str:
        port = self.port  # or the server is not started
        place = f"127.0.0.1:{port}" if self.socket_path is None else ""
        socket = "" if self.socket_path is None else f"?host={quote(str(self.data_dir), safe='')}"
        return f"postgresql://{user}:{self._password}@{place}/{quote(name, safe='')}{socket}"

    def _stop_signals(self) -> Sequence[signal.Signals]:
        # Fast, then immediate. A SIGTERM would wait for clients. A server without a parent has nobody to escalate, so
        # that one ends at once and recovers at its next start.
        return signal.SIGINT, signal.SIGQUIT

    def _make_command(self, program: Path, port: int) -> list[str]:
        settings = {
            **self._settings,
            "listen_addresses": "127.0.0.1" if self.socket_path is None else "",
            "port": str(port or _PORT_OF_SOCKETS),
            "unix_socket_directories": "" if self.socket_path is None else ".",  # the data folder
            "unix_socket_permissions": "0700",
            "hba_file": f"{self._path_seen_by_server(self.data_dir)}/{_ACCESS_FILE}",  # whatever the folder says
            **self._make_extension_settings(),
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(program), "-D", self._path_seen_by_server(self.data_dir), *options]

    def _make_extension_settings(self) -> dict[str, str]:
        folder = f"{self._path_seen_by_server(self.data_dir)}/{_EXTENSIONS_FOLDER}"
        return {} if ":" in folder else {"extension_control_path": f"{folder}:$system"}  # a colon separates folders

    def _is_ready(self, pid: int) -> bool:
        words = _read_pid_file_lines(self.data_dir)
        return words[:1] == [str(pid)] and words[7:8] == ["ready"]

    def _prepare_folder(self, program: Path) -> None:
        if not (self.data_dir / self.marker).exists():
            self._create_folder_with_initdb(program.with_name("initdb"))
        self._refuse_folder_of_other_version(program)
        self._remove_stale_pid_file()
        if not self._has_current_pg_hba_conf(self.data_dir):
            for name in self._create_role_and_list_databases(program, self.data_dir):
                self._run_script_in_single_user_mode(program, self.data_dir, name, make_ownership_script())
            self._write_pg_hba_conf(self.data_dir)
        self._trust_vector_extension(program)

    def _trust_vector_extension(self, program: Path) -> None:
        """Let the role create pgvector, which only superusers may by the control file that comes with it."""
        scripts = program.parent.parent / "share" / "extension"
        control = scripts / "vector.control"
        if not control.is_file():
            return
        folder = self.data_dir / _EXTENSIONS_FOLDER / "extension"
        quoted = str(scripts).replace("'", "''")
        trusted, text = folder / control.name, f"{control.read_text('utf-8')}trusted = true\ndirectory = '{quoted}'\n"
        if trusted.is_file() and trusted.read_text("utf-8", "replace") == text:
            return
        make_private_folder(folder.parent)
        make_private_folder(folder)
        write_private_file(trusted, text)

    def _create_folder_with_initdb(self, initdb: Path) -> None:
        # A sibling folder, so that an interrupted initdb never looks like a database.
        scratch = self.data_dir.with_name(self.data_dir.name + ".initdb")
        if scratch.exists():
            shutil.rmtree(scratch)
        scratch.mkdir(mode=0o700)
        try:
            self._run_initdb(initdb, scratch)
            self._create_role_and_list_databases(initdb.with_name("postgres"), scratch)
            self._write_pg_hba_conf(scratch)  # last: it marks the role as complete
            scratch.rename(self.data_dir)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        _sync_folder(self.data_dir.parent)

    def _run_initdb(self, initdb: Path, folder: Path) -> None:
        durability = ["--no-sync"] if self._settings.get("fsync") == "off" else []
        require_passwd_entry()
        command = [str(initdb), "-D", self._path_seen_by_server(folder), *_INITDB, *durability]
        self._run_to_end("initdb", command, folder)

    def _has_current_pg_hba_conf(self, folder: Path) -> bool:
        access = folder / _ACCESS_FILE
        return access.is_file() and access.read_text("utf-8", "replace") == self._make_pg_hba_conf()

    def _make_pg_hba_conf(self) -> str:
        return make_pg_hba_conf(self._password, superuser=self._superuser)

    def _create_role_and_list_databases(self, program: Path, folder: Path) -> list[str]:
        script = make_role_script(self._password, superuser=self._superuser)
        self._run_script_in_single_user_mode(program, folder, "postgres", script)
        return parse_database_names(self.log_path.read_text("utf-8", "replace").splitlines())

    def _run_script_in_single_user_mode(self, program: Path, folder: Path, database: str, script: str) -> None:
        durability = ["-F"] if self._settings.get("fsync") == "off" else []
        command = [str(program), *_SINGLE_USER, *durability, "-D", self._path_seen_by_server(folder), database]
        self._run_to_end("PostgreSQL in single-user mode", command, folder, script)

    def _write_pg_hba_conf(self, folder: Path) -> None:
        write_private_file(folder / _ACCESS_FILE, self._make_pg_hba_conf())
        _sync_folder(folder)

    def _run_to_end(self, name: str, command: Sequence[str], folder: Path, text: str = "") -> None:
        process = self._launch_process(command, folder, text)
        try:
            status = process.wait()
        finally:
            end_process(process, (), 0)
        if status != 0:
            cause = summarize_log_failure(self.log_path)
            raise EmbeddedError(f"{name} failed: {cause} (more in {self.log_path}).")

    def _path_seen_by_server(self, folder: Path) -> str:
        """Return the path for the server: as another user it may not reach the real path of its working folder."""
        return "/proc/self/cwd" if is_root() and sys.platform == "linux" else str(folder)

    def _refuse_folder_of_other_version(self, program: Path) -> None:
        made_by = (self.data_dir / self.marker).read_text("utf-8").strip()
        shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)  # noqa: S603  ours
        ours = shown.stdout.split()[-1].split(".")[0]
        if made_by != ours:
            raise EmbeddedError(
                f"{self.data_dir} was made by PostgreSQL {made_by} and this is PostgreSQL {ours}: "
                "dump it with that version and restore it, or move it away."
            )

    def _remove_stale_pid_file(self) -> None:
        """Remove a pid file of a dead server: PostgreSQL would accept any live process of that number."""
        number = _read_pid_file_lines(self.data_dir)[:1]
        if number and _is_running_in_folder(number[0], self.data_dir):
            raise EmbeddedError(
                f"{self.data_dir} is in use by process {number[0]}, a PostgreSQL started by other means."
            )
        for name in ("postmaster.pid", f"{self.socket_name}.lock"):
            (self.data_dir / name).unlink(missing_ok=True)


def _read_pid_file_lines(data_dir: Path) -> list[str]:
    try:
        return [line.strip() for line in (data_dir / "postmaster.pid").read_text(errors="replace").splitlines()]
    except FileNotFoundError:
        return []


def _is_running_in_folder(pid: str, folder: Path) -> bool:
    try:
        return os.path.samefile(f"/proc/{pid}/cwd", folder)
    except OSError:
        return False


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
