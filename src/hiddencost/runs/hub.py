"""The Hugging Face Hub, where a learned model is a file of a repository, beside a card that says what it is.

`huggingface_hub` asks it, and knows who asks (HF_TOKEN, or `hf auth login`), where the Hub is (HF_ENDPOINT), where
files are kept here (HF_HOME) and whether only those are to be used (HF_HUB_OFFLINE).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from huggingface_hub import CommitOperationAdd, HfApi, HfUri, hf_hub_download, parse_hf_uri
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from hiddencost.fetch import HERE
from hiddencost.files import refuse_of_a_moment
from hiddencost.messages import one_line

PROTOCOL = "hf://"
FILE = "model.safetensors"
REFUSED = (401, 403)  # statuses: who asks is not known, or may not


def download(address: str) -> Path:
    """Return a file of the Hub, from the cache of this machine where it is there and the Hub has no newer one.

    Args:
        address: hf://USER/REPO[@REVISION][/FILE]; without a file, FILE.

    Raises:
        ValueError: for another address.
        FileNotFoundError: there is no such repository, revision or file.
        OSError: in a line, if the Hub cannot be reached (ConnectionError), or refuses (PermissionError), or for what
            is wrong here, such as a full disk.
    """
    place = _parse(address)
    with _in_a_line(address):
        return Path(hf_hub_download(place.id, place.path_in_repo or FILE, revision=place.revision))


def upload(address: str, save: Callable[[Path], object], card: str) -> str:
    """Commit a file and its card to a repository, which is made where it is not there.

    Args:
        address: hf://USER/REPO.
        save: writes the file, FILE, to the path that it is given.
        card: of the repository, its README.md.

    Returns:
        hf://USER/REPO@COMMIT.

    Raises:
        As `download`.
    """
    place = _parse(address)
    if place.revision or place.path_in_repo:
        raise ValueError(f"{address}: expected hf://USER/REPO alone")
    with TemporaryDirectory() as folder:
        file, api = Path(folder, FILE), HfApi()
        save(file)
        operations = [CommitOperationAdd(FILE, file), CommitOperationAdd("README.md", card.encode())]
        with _in_a_line(address):
            api.create_repo(place.id, exist_ok=True)
            commit = api.create_commit(place.id, operations, commit_message="What a run of hiddencost has learned")
    return f"{PROTOCOL}{place.id}@{commit.oid}"


def _parse(address: str) -> HfUri:
    expected = "expected hf://USER/REPO[@REVISION][/FILE]"
    try:
        place = parse_hf_uri(address)
    except ValueError as error:
        raise ValueError(f"{one_line(address)}: {one_line(error)}; {expected}") from None
    if place.type != "model":
        raise ValueError(f"{one_line(address)}: a {place.type}; {expected}, of a model")
    return place


@contextmanager
def _in_a_line(address: str) -> Iterator[None]:
    """Tell what the Hub, or the way to it, has to say in one line."""
    try:
        yield
    except RevisionNotFoundError:
        raise FileNotFoundError(f"{address}: the repository has no such revision") from None
    except RemoteEntryNotFoundError:
        raise FileNotFoundError(f"{address}: the repository has no such file ({FILE} where none is named)") from None
    except RepositoryNotFoundError:
        why = "there is no such repository, or not for you; HF_TOKEN or `hf auth login` says who you are"
        raise FileNotFoundError(f"{address}: {why}") from None
    except LocalEntryNotFoundError as error:
        raise ConnectionError(f"{address}: not here, and {one_line(error.__cause__ or error)}") from error
    except HfHubHTTPError as error:
        if error.response.status_code in REFUSED:
            why = "expected HF_TOKEN, or `hf auth login`, of somebody who may"
            raise PermissionError(f"{address}: the Hub refuses: {one_line(error)}; {why}") from error
        raise ConnectionError(f"{address}: {one_line(error)}") from error
    except Exception as error:  # of the libraries below, which differ by version
        refuse_of_a_moment(error, HERE)
        raise ConnectionError(f"{address}: {type(error).__name__}: {one_line(error)}") from error
