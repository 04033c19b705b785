"""ModelScope as a source, by its own client."""

import errno
import glob
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from delivery.listing import NO_LISTING, Listing, RemoteFile, TransientError, no_listing
from delivery.log import adopt_log
from delivery.model_files import ModelFiles
from delivery.network import unreachable
from delivery.settings import DeliveryError, Settings
from delivery.transfer import no_space, sha256_of

_WORKERS = 4  # files at a time, for links that limit single connections
_WEEK_S = 7 * 24 * 3600


class ModelScope:
    """Lists and fetches one revision of one model. `scratch` is a writable folder for the client's own state."""

    def __init__(self, settings: Settings, scratch: Path) -> None:
        self._settings = settings
        self._scratch = scratch
        self._compared: set[str] = set()  # finished by an earlier try: the client would read them again
        # The client reads these once, when it is imported.
        os.environ.update(
            MODELSCOPE_HOME=str(scratch),
            MODELSCOPE_CACHE=str(scratch),
            MODELSCOPE_ENDPOINT=settings.address,
            # A week: its limit per file would end a slow download; ours ends one that stalls.
            MODELSCOPE_DOWNLOAD_TOTAL_TIMEOUT=str(_WEEK_S),
            MODELSCOPE_DOWNLOAD_TIMEOUT=str(max(1, int(min(60, settings.stall_timeout_s / 2)))),
            MODELSCOPE_REPO_TREE_PAGE_MAX_ATTEMPTS="1",  # we retry
            TQDM_DISABLE="1",  # its bars would fill the log
        )
        # Slow, and not needed when the model is there.
        from modelscope import snapshot_download  # type: ignore[import-untyped]  # noqa: PLC0415
        from modelscope_hub import HubApi  # noqa: PLC0415

        for name in ("modelscope", "modelscope_hub"):
            adopt_log(name)
        self._download = snapshot_download
        self._api = HubApi(token=settings.token or None, endpoint=settings.address)

    def listing(self) -> Listing:
        """Every file of the revision."""
        from modelscope_hub import errors  # noqa: PLC0415  # slow, see above

        settings = self._settings
        try:
            listed = self._api.list_repo_files(settings.model_id, "model", revision=settings.revision)
            files = tuple(RemoteFile(file.path, file.size, file.sha256) for file in listed if file.type != "tree")
        except errors.NotExistError as error:
            raise self._not_found() from error
        except errors.HubError as error:
            raise self._explain(error) from error
        except NO_LISTING as error:
            raise no_listing(settings, error) from error
        return Listing(files)

    def look(self, wanted: Sequence[RemoteFile]) -> AbstractContextManager[ModelFiles]:
        """The wanted files by name and size."""
        return nullcontext(ModelFiles.listed(wanted))

    def fetch(self, wanted: Sequence[RemoteFile], skipped: Sequence[RemoteFile], folder: Path) -> dict[str, str]:
        """Fetch the wanted files; the client compares each with its listed digest."""
        import requests  # noqa: PLC0415  # slow, see above
        from modelscope_hub import errors  # noqa: PLC0415

        settings = self._settings
        try:
            self._download(
                settings.model_id,
                revision=settings.revision,
                cache_dir=str(self._scratch),
                local_dir=str(folder),
                ignore_patterns=[glob.escape(path) for path in (*self._compared, *(file.path for file in skipped))],
                max_workers=_WORKERS,
                token=settings.token or None,
                endpoint=settings.address,
            )
        except errors.FileDownloadError as error:
            self._compared |= {file.path for file in wanted} - set(error.failed_files)
            raise self._worst(error.failed_files) from error
        except errors.HubError as error:
            raise self._explain(error) from error
        except requests.RequestException as error:  # the client wraps errors of its listing
            cause = error.__cause__
            raise (self._explain(cause) if cause else TransientError(str(error))) from error
        return {file.path: file.sha256 or sha256_of(folder / file.path) for file in wanted}

    def _worst(self, failures: dict[str, BaseException]) -> DeliveryError | TransientError:
        """One error for many files: a permanent one if there is any."""
        explained = [self._explain_file(path, error) for path, error in sorted(failures.items())]
        return min(explained, key=lambda error: isinstance(error, TransientError))

    def _explain_file(self, path: str, error: BaseException) -> DeliveryError | TransientError:
        from modelscope_hub import errors  # noqa: PLC0415  # slow, see above

        address = self._settings.address
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DeliveryError(no_space(path))
        if isinstance(error, errors.FileIntegrityError):
            return DeliveryError(
                f"{path}: {address} keeps giving other bytes than it lists: try another mirror or revision"
            )
        if isinstance(error, errors.NotExistError):
            return DeliveryError(f"{path}: {address} lists the file but does not have it (404): use another revision")
        explained = self._explain(error)
        return type(explained)(f"{path}: {explained}")

    def _explain(self, error: BaseException) -> DeliveryError | TransientError:
        """Translate a client's error."""
        from modelscope_hub import errors  # noqa: PLC0415  # slow, see above

        settings = self._settings
        if isinstance(error, errors.NotExistError):
            return DeliveryError(
                f"MODEL_ID: {settings.address} has no model {settings.model_id!r} (404): check the spelling on the "
                "hub's page; a private model also needs MODEL_TOKEN"
            )
        if isinstance(error, (errors.AuthenticationError, errors.PermissionDeniedError)):
            return DeliveryError(
                f"MODEL_TOKEN: {settings.address} denies access to {settings.model_id} ({error.status_code}): check "
                "the id, and for a gated model set the token of somebody who has accepted its terms"
            )
        if isinstance(error, errors.APIError):
            return TransientError(f"{settings.address} answers {error.status_code}")
        if isinstance(error, errors.NetworkError):
            return unreachable(settings, error)
        return TransientError(f"{type(error).__name__}: {error}")

    def _not_found(self) -> DeliveryError | TransientError:
        """Error for a missing revision or a missing model."""
        from modelscope_hub import errors  # noqa: PLC0415  # slow, see above

        settings = self._settings
        try:
            revisions = self._api.list_repo_revisions(settings.model_id, "model")
        except errors.HubError as error:
            return self._explain(error)
        names = ", ".join(sorted(str(revision.get("Revision")) for revision in revisions))
        return DeliveryError(
            f"MODEL_REVISION: {settings.model_id} has no revision {settings.revision!r}: use one of {names}"
        )
