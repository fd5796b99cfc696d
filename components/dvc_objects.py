"""Objects of a DVC remote: files named by their MD5, and listings that name the files of a folder.

What a remote sends is not trusted: it is hashed before it is used, and paths in a listing are checked.
"""

import hashlib
import json
import re

from model.errors import MyXTTSError
from model.files import stays_inside

DIGEST = re.compile(r"[0-9a-f]{32}")
FOLDER = ".dir"
"""End of the hash of a folder."""


class DamagedObjectError(MyXTTSError):
    """A remote or a cache holds something else under a hash; the message names both and the fix."""


def is_folder_hash(data_hash: str) -> bool:
    """Returns whether this is the DVC hash of a folder, `<md5>.dir`."""
    return data_hash.endswith(FOLDER) and bool(DIGEST.fullmatch(data_hash.removesuffix(FOLDER)))


def object_path(digest: str) -> str:
    """Returns the path of an object below the address of a remote or cache."""
    return f"files/md5/{digest[:2]}/{digest[2:]}"


def read_listing(content: bytes, data_hash: str, where: str) -> dict[str, str]:
    """Returns the MD5 of each file of a folder by its relative path.

    Args:
        content: The object that a remote or cache holds under the hash.
        data_hash: DVC hash of the folder.
        where: The remote or cache, for messages.

    Raises:
        DamagedObjectError: the content has another hash, is no listing, or a path leads out of the folder.
    """
    if not is_folder_hash(data_hash):
        raise DamagedObjectError(f"`{data_hash}` is not the hash of a DVC folder (32 hex digits and `.dir`)")
    fix = "delete the object there, and push the data again from a machine that has it"
    found = hashlib.md5(content, usedforsecurity=False).hexdigest() + FOLDER
    if found != data_hash:
        raise DamagedObjectError(f"{where}: the object {data_hash} has the hash {found}; {fix}")
    try:
        files = {item["relpath"]: item["md5"] for item in json.loads(content.decode("utf-8"))}
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DamagedObjectError(
            f"{where}: the object {data_hash} is no listing of a folder ({error}); {fix}"
        ) from error
    for name, digest in files.items():
        if not (isinstance(name, str) and stays_inside(name)):
            raise DamagedObjectError(
                f"{where}: the listing {data_hash} names {name!r}, which is outside its folder; {fix}"
            )
        if not (isinstance(digest, str) and DIGEST.fullmatch(digest)):
            raise DamagedObjectError(f"{where}: the listing {data_hash} has the hash {digest!r} for {name}; {fix}")
    return files
