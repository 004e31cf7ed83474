"""Which addresses of a database are understood, and what is said of the others."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.core.errors import ConfigurationError
from app.core.postgres_url import describe_database, parse_database_url

_PLAIN = {"user": "me", "password": "secret", "host": "db.example", "port": "5433", "dbname": "videos"}


def parse(url: str) -> dict[str, str]:
    return parse_database_url(url, "DATABASE_URL")


def refusal(url: str) -> str:
    with pytest.raises(ConfigurationError) as raised:
        parse(url)
    assert raised.value.__cause__ is None
    return str(raised.value)


@pytest.mark.parametrize(
    "scheme",
    [
        "postgres",
        "postgresql",
        "postgresql+asyncpg",
        "postgresql+psycopg",
        "postgresql+psycopg2",
        "postgres+asyncpg",
    ],
)
def test_every_postgresql_scheme_means_the_same(scheme: str) -> None:
    assert parse(f"{scheme}://me:secret@db.example:5433/videos") == _PLAIN


def test_options_behind_the_question_mark_are_kept() -> None:
    found = parse("postgresql://h/d?sslmode=verify-full&application_name=me&options=-c%20work_mem%3D8MB")
    assert found["sslmode"] == "verify-full"
    assert found["application_name"] == "me"
    assert found["options"] == "-c work_mem=8MB"


@pytest.mark.parametrize(
    ("theirs", "name", "value"),
    [
        ("ssl=require", "sslmode", "require"),
        ("ssl=true", "sslmode", "require"),
        ("ssl=false", "sslmode", "disable"),
        ("timeout=7", "connect_timeout", "7"),
    ],
)
def test_options_of_other_drivers_get_their_libpq_name(theirs: str, name: str, value: str) -> None:
    assert parse(f"postgresql+asyncpg://h/d?{theirs}")[name] == value


@pytest.mark.parametrize("url", ["postgresql:///d?host=/run/postgresql", "postgresql://%2Frun%2Fpostgresql/d"])
def test_a_socket_is_named_by_an_option_or_a_percent_encoded_host(url: str) -> None:
    assert parse(url) == {"host": "/run/postgresql", "dbname": "d"}


def test_several_hosts_keep_their_order_and_ports() -> None:
    found = parse("postgresql://one:5433,two,three:5434/d?target_session_attrs=read-write")
    assert (found["host"], found["port"]) == ("one,two,three", "5433,,5434")


def test_an_ipv6_address_stands_in_brackets() -> None:
    found = parse("postgresql://[2001:db8::1]:5433/d")
    assert (found["host"], found["port"]) == ("2001:db8::1", "5433")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("p%40ss%2Fw%3Ard%23%3F%25", "p@ss/w:rd#?%"),
        ("a%20b", "a b"),
        ("gr%C3%BCn", "grün"),
        ("p?ssl=true", "p?ssl=true"),
    ],
)
def test_a_password_is_read_as_it_was_meant(written: str, meant: str) -> None:
    assert parse(f"postgresql://me:{written}@h/d")["password"] == meant


@given(password=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1))
def test_every_percent_encoded_password_is_read_back(password: str) -> None:
    encoded = "".join(f"%{byte:02X}" for byte in password.encode())
    assert parse(f"postgresql://me:{encoded}@h:1/d")["password"] == password


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("mysql://h/d", "must be a PostgreSQL address such as postgresql://user@host:5432/database"),
        ("h/d", "must be a PostgreSQL address such as postgresql://user@host:5432/database"),
        ("sqlite+postgresql://h/d", "must be a PostgreSQL address such as postgresql://user@host:5432/database"),
        ("postgresql:///d", "names no host and no socket"),
        ("postgresql://me:secret@/d", "names no host and no socket"),
        ("postgresql://h", "names no database"),
        ("postgresql://h/", "names no database"),
        ("postgresql://h:70000/d", "has a port that is no number from 1 to 65535"),
        ("postgresql://h:0/d", "has a port that is no number from 1 to 65535"),
        ("postgresql://one:1,two:x/d", "has a port that is no number from 1 to 65535"),
        ("postgresql://h/d?pool_size=5", "has an option 'pool_size' that PostgreSQL does not know"),
        ("postgresql://h/d?connect_timeout=soon", "has a connect_timeout that is no whole number of seconds"),
        ("postgresql://[::1/d", "cannot be read as an address"),
        ("postgresql://me:a%zz@h/d", "cannot be read as an address"),
        ("postgresql://h\udcff/d", "cannot be read as an address"),
    ],
)
def test_what_cannot_work_is_one_sentence_that_names_the_setting(url: str, sentence: str) -> None:
    assert refusal(url) == f"DATABASE_URL {sentence}"


@pytest.mark.parametrize("password", ["s@cret", "12/cret", "12/cr?t=x", "12/cr?t", "x/y@z"])
def test_a_password_that_is_not_percent_encoded_is_not_taken_for_something_else(password: str) -> None:
    message = refusal(f"postgresql://me:{password}@h:1/d")
    assert not any(part in message for part in ("cret", "cr?", "'t'"))


@given(
    password=st.text(st.characters(codec="utf-8"), min_size=8),
    url=st.sampled_from(
        [
            "postgresql://me:{}@h/d",
            "postgresql://me:{}@h:70000/d",
            "postgresql://me:{}@/d",
            "postgresql://me:{}@h",
            "postgresql://me:{}@h/d?nonsense=1",
            "postgresql://h/d?password={}",
            "postgresql://h/d?password={}&nonsense=1",
            "mysql://me:{}@h/d",
            "{}",
        ]
    ),
)
def test_no_message_holds_the_password(password: str, url: str) -> None:
    def describe(password: str) -> str:
        try:
            return describe_database(parse(url.format(password)))
        except ConfigurationError as error:
            return str(error)

    shown = describe(password)
    assume(not any(password in text for text in (url, describe("¤"))))  # a part of the sentence itself
    assert password not in shown


@pytest.mark.parametrize(
    ("url", "described"),
    [
        ("postgresql://me:secret@db.example:5433/videos", "me@db.example:5433/videos"),
        ("postgresql:///d?hostaddr=127.0.0.1", "127.0.0.1/d"),
        ("postgresql:///d?host=/run/postgresql", "/run/postgresql/d"),
    ],
)
def test_messages_name_a_database_without_its_password(url: str, described: str) -> None:
    assert describe_database(parse(url)) == described
