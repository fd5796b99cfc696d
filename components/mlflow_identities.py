"""Makes the identities of an MLflow server with logins: `python -m components.mlflow_identities <settings file>`.

It runs before the server (`infra/kubernetes/base/mlflow.yaml`), which then starts with the settings file it writes.
Users and their passwords are those of the environment at each start, so that a changed secret changes the password.

| user | may |
| --- | --- |
| admin | everything, and give people the role `registry` |
| steps | read everything, make experiments, and write runs of the experiments that it made |
| registry | write all runs; make, change and delete all registered models |
"""

import configparser
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.files import atomic_write

ADMIN, STEPS, REGISTRY = "admin", "steps", "registry"
PASSWORDS = {ADMIN: "ADMIN_PASSWORD", STEPS: "STEPS_PASSWORD", REGISTRY: "REGISTRY_PASSWORD"}
"""Environment variables with the passwords, at least twelve characters each."""
GRANTS = {"experiment": "EDIT", "registered_model": "MANAGE"}
"""Type of object -> permission of the role `registry` on all objects of the type."""
CACHE_SECONDS = 60
"""Seconds for which a server accepts a login without hashing its password again, which takes longer than a request."""


def write_settings(path: Path, database: str, admin_password: str) -> Path:
    """Writes the settings of MLflow's basic-auth app, readable by this user alone.

    Args:
        path: The file.
        database: Address of the database with the users; it may be the server's own.
        admin_password: Password of the user `admin`.
    """
    settings = configparser.ConfigParser(interpolation=None)
    settings["mlflow"] = {
        "default_permission": "READ",
        "database_uri": database.replace("%", "%%"),  # MLflow interpolates what it reads
        "admin_username": ADMIN,
        "admin_password": admin_password.replace("%", "%%"),
        "auth_cache_ttl_seconds": str(CACHE_SECONDS),
    }
    with atomic_write(path) as partial:
        partial.touch(0o600)
        with partial.open("w", encoding="utf-8") as file:
            settings.write(file)
    return path


def make_identities(database: str, passwords: Mapping[str, str]) -> None:
    """Makes or updates the users and the role `registry` in the database of the users.

    Args:
        database: Address of the database.
        passwords: User -> password.

    Raises:
        MlflowException: a password is too short.
    """
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore
    from mlflow.utils.workspace_utils import DEFAULT_WORKSPACE_NAME

    store = SqlAlchemyStore()
    store.init_db(database)
    for user, password in passwords.items():
        if store.has_user(user):
            store.update_user(user, password=password, is_admin=user == ADMIN)
        else:
            store.create_user(user, password, is_admin=user == ADMIN)
    roles = {role.name: role for role in store.list_roles([DEFAULT_WORKSPACE_NAME])}
    role: Any = roles.get(REGISTRY) or store.create_role(
        REGISTRY, DEFAULT_WORKSPACE_NAME, "writes runs and changes registered models"
    )
    granted = {item.resource_type for item in store.list_role_permissions(role.id)}
    for kind, permission in GRANTS.items():
        if kind not in granted:
            store.add_role_permission(role.id, kind, "*", permission)
    writer = store.get_user(REGISTRY)
    if role.id not in {item.id for item in store.list_user_roles(writer.id)}:
        store.assign_role_to_user(writer.id, role.id)


def main(settings: str) -> None:
    """Writes the settings file and makes the identities, from the environment."""
    database = os.environ["BACKEND"]
    passwords = {user: os.environ[variable] for user, variable in PASSWORDS.items()}
    write_settings(Path(settings), database, passwords[ADMIN])
    make_identities(database, passwords)


if __name__ == "__main__":
    main(sys.argv[1])
