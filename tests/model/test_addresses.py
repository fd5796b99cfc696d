"""Addresses in settings and messages."""

import pytest

from model.addresses import credentials_in, hide_credentials

WITH_CREDENTIALS = {
    "https://user:hunter2@host/path": ("user info", "https://host/path"),
    "https://hunter2@host:8080/path": ("user info", "https://host:8080/path"),
    "https://user:hunter2@hunter2@host/": ("user info", "https://host/"),
    "http://user:hun/hunter2@host/path": ("user info", "http://host/path"),
    "http://user:#hunter2@host": ("user info", "http://host"),
    "postgresql+pg8000://user:hunter2@db:5432/mlflow": ("user info", "postgresql+pg8000://db:5432/mlflow"),
    "https://s3/b/k?X-Amz-Signature=hunter2&X-Amz-Date=hunter2": (
        "a signature",
        "https://s3/b/k?X-Amz-Signature=...&X-Amz-Date=...",
    ),
    "https://azure/b/k?sv=2024&sig=hunter2": ("a signature", "https://azure/b/k?sv=2024&sig=..."),
    "https://host/k?download=1&access_token=hunter2": ("a signature", "https://host/k?download=1&access_token=..."),
}
WITHOUT = (
    "s3://bucket/key@v1/file",
    "https://host:8443/a@b?download=true",
    "https://host:8443/a:b@c",
    "http://mlflow:5000",
    "/data/me@home/corpus",
    "",
)


@pytest.mark.parametrize("address", WITH_CREDENTIALS)
def test_credentials_are_found_and_hidden(address):
    kind, shown = WITH_CREDENTIALS[address]
    assert credentials_in(address) == kind
    assert hide_credentials(address) == shown
    hidden = hide_credentials(f"cannot open '{address}': refused; ask someone@example.com")
    assert "hunter2" not in hidden
    assert hidden.endswith("someone@example.com")


@pytest.mark.parametrize("address", WITHOUT)
def test_an_address_without_credentials_stays_as_it_is(address):
    assert credentials_in(address) == ""
    assert hide_credentials(f"{address}: no answer") == f"{address}: no answer"
