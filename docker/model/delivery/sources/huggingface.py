"""Hugging Face as a source, by its own client.

The client's `snapshot_download` restarts a file after every interruption and compares no digests, so only its listing
and `http_get` (retries, ranges, rate limits, redirects) are used.
"""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from delivery.listing import NO_LISTING, Listing, RemoteFile, TransientError, no_listing
from delivery.log import adopt_log
from delivery.model_files import ModelFiles
from delivery.network import unreachable
from delivery.settings import DeliveryError, Settings
from delivery.transfer import HashingFile, place_all

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

# Lost per open file when a connection breaks, and held in memory; the client's default is 10 MB.
_CHUNK_BYTES = 1 << 18
_WORKERS = 4  # files at a time, for links that limit single connections


class HuggingFace:
    """Lists and fetches one revision of one model. `scratch` is a writable folder for the client's own state."""

    def __init__(self, settings: Settings, scratch: Path) -> None:
        self._settings = settings
        self._commit = ""
        self._placed: dict[str, str] = {}
        # The client reads these once, when it is imported.
        os.environ.update(
            HF_HOME=str(scratch),
            HF_HUB_DISABLE_PROGRESS_BARS="1",  # its bars would fill the log
            HF_HUB_DISABLE_TELEMETRY="1",
            HF_HUB_DISABLE_UPDATE_CHECK="1",
            HF_HUB_DISABLE_XET="1",  # a second protocol, which cannot continue a download
            HF_HUB_DOWNLOAD_TIMEOUT=str(max(1, int(min(60, settings.stall_timeout_s / 2)))),
        )
        from huggingface_hub import HfApi, constants  # noqa: PLC0415  # slow, and not needed when the model is there

        constants.DOWNLOAD_CHUNK_SIZE = _CHUNK_BYTES
        adopt_log("huggingface_hub")
        # False: never use a token from the client's own files.
        self._api = HfApi(endpoint=settings.address, token=settings.token or False)

    def listing(self) -> Listing:
        """Every file of the revision at its present commit."""
        import httpx2  # noqa: PLC0415  # slow, see above
        from huggingface_hub import errors  # noqa: PLC0415
        from huggingface_hub.hf_api import RepoFile  # noqa: PLC0415

        settings = self._settings
        try:
            self._commit = self._api.model_info(settings.model_id, revision=settings.revision).sha or settings.revision
            tree = self._api.list_repo_tree(settings.model_id, recursive=True, revision=self._commit)
            files = tuple(_remote_file(entry) for entry in tree if isinstance(entry, RepoFile))
        except errors.RevisionNotFoundError as error:
            raise DeliveryError(self._no_revision()) from error
        except (errors.HfHubHTTPError, httpx2.HTTPError) as error:
            raise self._explain(error) from error
        except NO_LISTING as error:
            raise no_listing(settings, error) from error
        return Listing(files, self._commit)

    def look(self, wanted: Sequence[RemoteFile]) -> AbstractContextManager[ModelFiles]:
        """The wanted files by name and size."""
        return nullcontext(ModelFiles.listed(wanted))

    def fetch(self, wanted: Sequence[RemoteFile], skipped: Sequence[RemoteFile], folder: Path) -> dict[str, str]:
        """Fetch the wanted files."""
        from huggingface_hub import hf_hub_url  # noqa: PLC0415  # slow, see above

        del skipped
        settings = self._settings
        headers = {"Accept-Encoding": "identity"}
        if settings.token:
            headers["Authorization"] = f"Bearer {settings.token}"

        def write(file: RemoteFile, stream: HashingFile) -> None:
            url = hf_hub_url(settings.model_id, file.path, revision=self._commit, endpoint=settings.address)
            self._transfer(url, file, stream, headers)

        place_all(wanted, folder, write, workers=_WORKERS, placed=self._placed)
        return self._placed

    def _transfer(self, url: str, file: RemoteFile, stream: HashingFile, headers: dict[str, str]) -> None:
        import httpx2  # noqa: PLC0415  # slow, see above
        from huggingface_hub import errors  # noqa: PLC0415
        from huggingface_hub.file_download import http_get  # noqa: PLC0415

        try:
            http_get(
                url,
                cast("BinaryIO", stream),
                resume_size=stream.tell(),
                headers=headers,
                expected_size=file.size,
                displayed_filename=file.path,
            )
        except (errors.HfHubHTTPError, httpx2.HTTPError) as error:
            explained = self._explain(error)
            raise type(explained)(f"{file.path}: {explained}") from error
        except OSError as error:
            if error.errno is None:  # the client's error for a body of the wrong length
                raise TransientError(f"{file.path}: the transfer ended early") from error
            raise

    def _explain(self, error: Exception) -> DeliveryError | TransientError:
        """Translate a client's error."""
        from huggingface_hub import errors  # noqa: PLC0415  # slow, see above

        settings = self._settings
        status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0
        if status in {401, 403} or isinstance(error, errors.GatedRepoError):
            return DeliveryError(
                f"MODEL_TOKEN: {settings.address} denies access to {settings.model_id} ({status}): check the id, and "
                "for a gated model set the token of somebody who has accepted its terms"
            )
        if isinstance(error, errors.RemoteEntryNotFoundError):
            return DeliveryError(f"{settings.address} lists the file but does not have it (404): use another revision")
        if status == 404:
            return DeliveryError(
                f"MODEL_ID: {settings.address} has no model {settings.model_id!r} (404): check the spelling on the "
                "hub's page"
            )
        if status:
            return TransientError(f"{settings.address} answers {status}")
        return unreachable(settings, error)

    def _no_revision(self) -> str:
        settings = self._settings
        refs = self._api.list_repo_refs(settings.model_id)
        names = ", ".join(sorted(ref.name for ref in (*refs.branches, *refs.tags)))
        return f"MODEL_REVISION: {settings.model_id} has no revision {settings.revision!r}: use one of {names}"


def _remote_file(entry: "RepoFile") -> RemoteFile:
    if entry.lfs is not None:
        return RemoteFile(entry.path, entry.size, sha256=entry.lfs.sha256)
    return RemoteFile(entry.path, entry.size, git_sha1=entry.blob_id)
