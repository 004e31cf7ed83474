"""Addresses of a PostgreSQL database: any scheme in, libpq parameters out, and never a password in a message."""

import re
from collections.abc import Mapping

import psycopg
from psycopg.conninfo import conninfo_to_dict

from app.core.errors import ConfigurationError

_SCHEME = re.compile(r"\A(?:postgres|postgresql)(?:\+(?:asyncpg|psycopg|psycopg2|psycopg_async|pg8000))?://")
_QUERY_PARAMETER = re.compile(r'invalid URI query parameter: "([^"]*)"')

# What the other drivers call libpq's parameters.
_OTHER_NAMES = {"ssl": "sslmode", "timeout": "connect_timeout"}
_SSL_VALUES = {"true": "require", "false": "disable"}


def parse_database_url(url: str, setting: str) -> dict[str, str]:
    """Return libpq's connection parameters for `url`.

    Accepts `postgres://`, `postgresql://` and `postgresql+<driver>://`, options after `?`, several hosts, Unix sockets
    (`?host=/run/postgresql` or a percent-encoded host) and percent-encoded passwords. Raises `ConfigurationError`, one
    sentence that names `setting` and never holds the password.
    """
    scheme = _SCHEME.match(url)
    if scheme is None:
        raise ConfigurationError(f"{setting} must be a PostgreSQL address such as postgresql://user@host:5432/database")
    try:
        parameters = conninfo_to_dict("postgresql://" + _rename_options(url[scheme.end() :]))
    except psycopg.ProgrammingError as error:
        option = _QUERY_PARAMETER.search(str(error))
        reason = (
            f"has an option {option[1]!r} that PostgreSQL does not know" if option else "cannot be read as an address"
        )
        raise ConfigurationError(f"{setting} {reason}") from None
    values = {name: str(value) for name, value in parameters.items() if value not in (None, "")}
    if "host" not in values and "hostaddr" not in values and "service" not in values:
        raise ConfigurationError(f"{setting} names no host and no socket")
    if "dbname" not in values and "service" not in values:
        raise ConfigurationError(f"{setting} names no database")
    if any(not _is_port(port) for port in values.get("port", "5432").split(",")):
        raise ConfigurationError(f"{setting} has a port that is no number from 1 to 65535")
    return values


def describe_database(parameters: Mapping[str, str]) -> str:
    """Return `user@host:port/database`, the form in which messages name a database."""
    host = parameters.get("host") or parameters.get("hostaddr", "")
    user = f"{parameters['user']}@" if "user" in parameters else ""
    port = f":{parameters['port']}" if "port" in parameters else ""
    return f"{user}{host}{port}/{parameters.get('dbname', '')}"


def _rename_options(rest: str) -> str:
    address, mark, query = rest.partition("?")
    options = []
    for option in filter(None, query.split("&")):
        name, equals, value = option.partition("=")
        if name == "ssl":
            value = _SSL_VALUES.get(value.lower(), value)
        options.append(f"{_OTHER_NAMES.get(name, name)}{equals}{value}")
    return address + mark + "&".join(options)


def _is_port(text: str) -> bool:
    return text == "" or (text.isascii() and text.isdecimal() and 0 < int(text) < 65536)
