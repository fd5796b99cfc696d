"""Credentials in addresses: detection in settings, and removal from messages."""

import re
from collections.abc import Callable
from urllib.parse import parse_qsl, urlsplit

SIGNED = (
    r"(?:x-(?:amz|goog|oss|cos)-[\w-]+|sig|signature|policy|awsaccesskeyid|googleaccessid|key-pair-id"
    r"|[\w.-]*(?:token|secret|passw(?:or)?d|credential|api-?_?key))"
)
"""Query parameters of presigned URLs and of other addresses that grant access by themselves."""
_USER_INFO = re.compile(r"(?<=://)(?:[^\s/?#]*@|[^\s/?#@:\"']*:(?!\d+(?:[/?#\s\"',;)]|$))[^\s@]*@)")
"""User info before the host. The second form is a password with an unescaped slash, question mark or hash."""
_PARAMETER = re.compile(rf"(?i)([?&#;]{SIGNED}=)[^\s&#;\"']+")


def hide_credentials(text: str) -> str:
    """Returns a text without the credentials of the addresses in it: user info, and values of signed parameters."""
    return _PARAMETER.sub(r"\1...", _USER_INFO.sub("", text))


def credentials_in(address: str) -> str:
    """Returns the kind of credentials that an address contains: `user info`, `a signature`, or '' for none."""
    if _USER_INFO.search(address):
        return "user info"
    query = urlsplit(address).query.replace(";", "&") if "://" in address else ""
    signed = any(re.fullmatch(SIGNED, name, re.IGNORECASE) for name, _ in parse_qsl(query, keep_blank_values=True))
    return "a signature" if signed else ""


def without_credentials(fix: str) -> Callable[[str], str]:
    """Returns a validator of a setting that holds an address; its error ends with `fix`.

    Settings are stored in compiled pipelines, run records and voices, whose readers may not have access to the
    credentials.
    """

    def check(address: str) -> str:
        if found := credentials_in(address):
            raise ValueError(f"contains {found}, which would be stored with the settings; {fix}")
        return address

    return check
