"""Extensions of the embedded PostgreSQL: its role may create those that searching needs."""

from pathlib import Path

import pytest
from psycopg.errors import InsufficientPrivilege

from app.embedded import EmbeddedPostgres
from tests.embedded.servers import QUICK, query


def test_the_role_may_create_pgvector_though_it_is_no_superuser(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "postgres", settings=QUICK) as postgres:
        query(postgres.url, "CREATE EXTENSION vector")
        assert query(postgres.url, "SELECT '[1,2]'::halfvec(2) <=> '[2,4]'") == [(0.0,)]
        with pytest.raises(InsufficientPrivilege):
            query(postgres.url, "CREATE EXTENSION pageinspect")
    with EmbeddedPostgres(tmp_path / "postgres", settings=QUICK) as postgres:
        query(postgres.url, "DROP EXTENSION vector; CREATE EXTENSION vector")
