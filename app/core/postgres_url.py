"""Addresses of a PostgreSQL database: any scheme in, libpq parameters out, and never a password in a message."""

import re
from collections.abc import Mapping

import psycopg
from psycopg.conninfo import conninfo_to_dict

from app.core.errors import ConfigurationError

_SCHEME = re.compile(r"\A(?:postgres|postgresql)(?:\+(?:asyncpg|psycopg|psycopg2|psycopg_async|pg8000))?://")
_CREDENTIALS = re.compile(r"[^@/]*@")  # as libpq reads them: a question mark may be part of a password
_QUERY_PARAMETER = re.compile(r'invalid URI query parameter: "([^"]*)"')

# What the other drivers call libpq's parameters.
_OTHER_NAMES = {"ssl": "sslmode", "timeout": "connect_timeout"}
_SSL_VALUES = {"true": "require", "false": "disable"}


def parse_database_url(url: str, setting: str) -> dict[str, str]:
    """Return libpq's connection parameters for `url`.

    Accepts `postgresql+<driver>://` too, options after `?`, several hosts, Unix sockets (`?host=/run/postgresql`) and
    percent-encoded passwords. Raises `ConfigurationError`, which names `setting` and never holds the password.
    """
    scheme = _SCHEME.match(url)
    if scheme is None:
        raise ConfigurationError(f"{setting} must be a PostgreSQL address such as postgresql://user@host:5432/database")
    values = _parse_database_address(_rename_driver_options(url[scheme.end() :]), setting)
    if problem := _find_address_problem(values):
        raise ConfigurationError(f"{setting} {problem}")
    return values


def describe_database(parameters: Mapping[str, str]) -> str:
    """Return `user@host:port/database` for messages."""
    host = parameters.get("host") or parameters.get("hostaddr", "")
    user = f"{parameters['user']}@" if "user" in parameters else ""
    port = f":{parameters['port']}" if "port" in parameters else ""
    return f"{user}{host}{port}/{parameters.get('dbname', '')}"


def _parse_database_address(address: str, setting: str) -> dict[str, str]:
    try:
        parameters = conninfo_to_dict("postgresql://" + address)
    except (psycopg.ProgrammingError, UnicodeEncodeError) as error:
        option = _QUERY_PARAMETER.search(str(error))
        # Before an @ it is no option but the rest of a password that has a slash and a question mark in it.
        if option and "@" not in address.partition("?")[2]:
            reason = f"has an option {option[1]!r} that PostgreSQL does not know"
        else:
            reason = "cannot be read as an address"
        raise ConfigurationError(f"{setting} {reason}") from None
    return {name: str(value) for name, value in parameters.items() if value not in (None, "")}


def _find_address_problem(parameters: Mapping[str, str]) -> str | None:
    host = parameters.get("host", "")
    if "@" in host[1:] or "@" in parameters.get("dbname", ""):  # a host that begins with one is an abstract socket
        return "has an @ behind the password's end: percent-encode the characters of the password"
    if not host and "hostaddr" not in parameters:
        return "names no host and no socket"
    if "dbname" not in parameters:
        return "names no database"
    ports = filter(None, parameters.get("port", "").split(","))
    if not all(port.isascii() and port.isdecimal() and 0 < int(port) < 65536 for port in ports):
        return "has a port that is no number from 1 to 65535"
    if not parameters.get("connect_timeout", "0").isdecimal():
        return "has a connect_timeout that is no whole number of seconds"
    return None


def _rename_driver_options(address: str) -> str:
    credentials = _CREDENTIALS.match(address)
    place, mark, query = address[credentials.end() if credentials else 0 :].partition("?")
    options = []
    for option in filter(None, query.split("&")):
        name, equals, value = option.partition("=")
        if name == "ssl":
            value = _SSL_VALUES.get(value.lower(), value)
        options.append(f"{_OTHER_NAMES.get(name, name)}{equals}{value}")
    return (credentials[0] if credentials else "") + place + mark + "&".join(options)
