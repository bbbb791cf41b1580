"""Folders that are shared by Seafile: the address of a file, by its name.

What is shared is listed without a login, a folder at a time, by HOST/api/v2.1/share-links/TOKEN/dirents/?path=FOLDER
(github.com/haiwen/seahub, ShareLinkDirents), and a file of it is at HOST/d/TOKEN/files/?p=PATH&dl=1, which redirects
to the server of files (seahub/views/file.py, view_file_via_shared_dir).
"""

import json
from collections.abc import Callable
from fnmatch import fnmatchcase
from urllib.parse import urlencode

FOLDERS = 100  # that are listed, at most
LISTING = 8_000_000  # bytes of a listing, at most


def address(folder: str, pattern: str, get: Callable[[str], bytes]) -> str:
    """Return where a file is downloaded from.

    Args:
        folder: that is shared, https://HOST/d/TOKEN.
        pattern: of the file's name, as fnmatch has it; it is looked for in all folders within.
        get: returns what is at an address.

    Raises:
        ValueError: in one line: an answer is no listing, there are too many folders, or not one file has the name.
    """
    host, _, token = folder.rpartition("/d/")
    pending, listed, found, others = ["/"], 0, list[str](), list[str]()
    while pending:
        listed += 1
        if listed > FOLDERS:
            raise ValueError(f"{folder} has more than {FOLDERS} folders, in which {pattern} is looked for")
        url = f"{host}/api/v2.1/share-links/{token}/dirents/?{urlencode({'path': pending.pop(0)})}"
        try:
            for entry in json.loads(get(url))["dirent_list"]:
                if entry["is_dir"]:
                    pending.append(str(entry["folder_path"]))
                else:
                    (found if fnmatchcase(entry["file_name"], pattern) else others).append(str(entry["file_path"]))
        except (KeyError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(f"{url} gives no listing of a folder shared by Seafile") from error
    if len(found) != 1:
        names = ", ".join((found or others)[:20])
        raise ValueError(f"{len(found)} files are called {pattern}, expected 1; found {names or 'none'}")
    return f"{folder}/files/?{urlencode({'p': found[0], 'dl': 1})}"
