"""The roles that the manifest makes, on a real PostgreSQL: each service has its own database and nothing else."""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pg8000.dbapi
import pytest
import yaml
from postgres_server import executable, postgres_server

pytestmark = pytest.mark.postgres

MANIFEST = Path(__file__).parents[2] / "infra" / "kubernetes" / "base" / "databases.yaml"
PASSWORDS = {"mlflow": "it's $ecret", "optuna": 'another "one'}


@pytest.fixture(scope="module")
def port() -> int:
    """A server on which the start script of the manifest has run."""
    (script,) = (
        item["data"]["roles.sh"]
        for item in yaml.safe_load_all(MANIFEST.read_text("utf-8"))
        if item["kind"] == "ConfigMap"
    )
    with postgres_server(passwords=True) as address:
        number = address.rpartition(":")[2]
        environment = {
            "PATH": os.pathsep.join([str(Path(executable("psql")).parent), os.environ["PATH"]]),
            "PGHOST": "127.0.0.1",
            "PGPORT": number,
            "PGPASSWORD": "superuser",
            "POSTGRES_USER": "myxtts",
            **{f"{service.upper()}_PASSWORD": password for service, password in PASSWORDS.items()},
        }
        subprocess.run(["bash", "-c", script], env=environment, check=True)
        yield int(number)


def connect(port: int, role: str, database: str, password: str | None = None) -> pg8000.dbapi.Connection:
    return pg8000.dbapi.connect(
        role, host="127.0.0.1", port=port, database=database, password=password or PASSWORDS[role]
    )


def ask(connection: pg8000.dbapi.Connection, statement: str) -> tuple:
    connection.autocommit = True
    cursor = connection.cursor()
    cursor.execute(statement)
    return tuple(cursor.fetchall()) if cursor.description else ()


@pytest.mark.parametrize("role", PASSWORDS)
def test_a_role_makes_tables_in_its_own_database_and_is_no_superuser(port, role):
    connection = connect(port, role, role)
    ask(connection, "CREATE TABLE t (x int)")
    rights = "rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls"
    assert ask(connection, f"SELECT {rights} FROM pg_roles WHERE rolname = '{role}'") == ([False] * 5,)
    connection.close()


@pytest.mark.parametrize(("role", "other"), [("mlflow", "optuna"), ("optuna", "mlflow")])
def test_a_role_reaches_no_other_database(port, role, other):
    for database in (other, "postgres", "template1"):
        with pytest.raises(pg8000.dbapi.DatabaseError, match="permission denied for database"):
            connect(port, role, database)


@pytest.mark.parametrize("statement", ["CREATE DATABASE x", "CREATE ROLE x", "ALTER ROLE mlflow SUPERUSER"])
def test_a_role_gives_itself_no_rights(port, statement):
    connection = connect(port, "mlflow", "mlflow")
    with pytest.raises(pg8000.dbapi.DatabaseError, match=r"permission denied|must be superuser"):
        ask(connection, statement)
    connection.close()


def test_a_role_needs_its_password(port):
    with pytest.raises(pg8000.dbapi.DatabaseError, match="password authentication failed"):
        connect(port, "mlflow", "mlflow", "wrong")


@pytest.mark.slow  # half a minute: MLflow makes its tables
def test_mlflow_its_logins_and_optuna_work_with_these_rights(port):
    import optuna
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    from components.mlflow_identities import PASSWORDS as USERS
    from components.mlflow_identities import make_identities

    mlflow, studies = (
        f"postgresql+pg8000://{role}:{quote(PASSWORDS[role])}@127.0.0.1:{port}/{role}" for role in ("mlflow", "optuna")
    )
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", "db", "upgrade", mlflow], stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    make_identities(mlflow, dict.fromkeys(USERS, "twelve characters"))
    store = SqlAlchemyStore()
    store.init_db(mlflow)
    assert store.authenticate_user("registry", "twelve characters")
    optuna.create_study(storage=studies, study_name="s").add_trial(optuna.trial.create_trial(value=1.0))
    assert optuna.load_study(storage=studies, study_name="s").best_value == 1.0
