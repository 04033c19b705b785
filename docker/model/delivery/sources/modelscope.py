"""ModelScope, through its own client."""

import errno
import glob
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from delivery.listing import RemoteFile, TransientError
from delivery.settings import DeliveryError, Settings

if TYPE_CHECKING:
    from modelscope_hub import HubApi

_PUBLIC_ENDPOINT = "https://www.modelscope.cn"
_WORKERS = 4  # files at a time: enough to fill a line that limits single connections
_WEEK_S = 7 * 24 * 3600


class ModelScope:
    """Lists and fetches one revision of one model. `scratch` is a writable folder for the client's own state."""

    def __init__(self, settings: Settings, scratch: Path) -> None:
        self._settings = settings
        self._scratch = scratch
        self.address = settings.endpoint or _PUBLIC_ENDPOINT
        self._api = self._client()

    def _client(self) -> "HubApi":
        # The client reads these once, when it is imported.
        os.environ.update(
            MODELSCOPE_HOME=str(self._scratch),
            MODELSCOPE_CACHE=str(self._scratch),
            MODELSCOPE_ENDPOINT=self.address,
            # Its budget per file would end a slow download that moves; the deadline is ours: no new byte for too long.
            MODELSCOPE_DOWNLOAD_TOTAL_TIMEOUT=str(_WEEK_S),
            MODELSCOPE_DOWNLOAD_TIMEOUT=str(max(1, int(min(60, self._settings.stall_timeout_s / 2)))),
            TQDM_DISABLE="1",  # its bars would fill the log
        )
        from modelscope_hub import HubApi  # noqa: PLC0415  # slow, and not needed when the model is there

        _adopt_log("modelscope_hub")
        return HubApi(token=self._settings.token or None, endpoint=self.address)

    def files(self) -> list[RemoteFile]:
        """Every file of the revision. Raises DeliveryError."""
        from modelscope_hub import errors  # noqa: PLC0415  # slow, see above

        settings = self._settings
        try:
            listed = self._api.list_repo_files(settings.model_id, "model", revision=settings.revision)
        except errors.NotExistError as error:
            raise self._not_found() from error
        except errors.HubError as error:
            raise DeliveryError(_explain(error, settings, self.address)) from error
        return [RemoteFile(file.path, file.size, file.sha256) for file in listed if file.type != "tree"]

    def fetch(self, files: Sequence[RemoteFile], skipped: Sequence[RemoteFile], folder: Path) -> None:
        """Bring `files` into `folder`, going on where an earlier try ended. Raises DeliveryError, TransientError.

        The client compares each file with the listed digest while it writes.
        """
        import requests  # noqa: PLC0415  # slow, see above
        from modelscope import snapshot_download  # type: ignore[import-untyped]  # noqa: PLC0415
        from modelscope_hub import errors  # noqa: PLC0415

        del files  # the client lists the revision again by itself
        _adopt_log("modelscope")
        settings = self._settings
        try:
            snapshot_download(
                settings.model_id,
                revision=settings.revision,
                cache_dir=str(self._scratch),
                local_dir=str(folder),
                ignore_patterns=[glob.escape(file.path) for file in skipped],
                max_workers=_WORKERS,
                token=settings.token or None,
                endpoint=self.address,
            )
        except errors.FileDownloadError as error:
            raise self._failed(error.failed_files) from error
        except (errors.HubError, requests.RequestException) as error:
            raise TransientError(_explain(error, settings, self.address)) from error

    def _not_found(self) -> DeliveryError:
        from modelscope_hub import errors  # noqa: PLC0415  # slow, see above

        settings = self._settings
        try:
            revisions = self._api.list_repo_revisions(settings.model_id, "model")
        except errors.HubError as error:
            return DeliveryError(_explain(error, settings, self.address))
        names = ", ".join(sorted(str(revision.get("Revision")) for revision in revisions))
        return DeliveryError(
            f"MODEL_REVISION: {settings.model_id} has no revision {settings.revision!r}: use one of {names}"
        )

    def _failed(self, failures: dict[str, BaseException]) -> DeliveryError | TransientError:
        """One error for many files: a lasting one if any is, else one that is worth another try."""
        from modelscope_hub import errors  # noqa: PLC0415  # slow, see above

        settings = self._settings
        for path, error in sorted(failures.items()):
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                return DeliveryError(_no_space(path))
            lasting = (errors.NotExistError, errors.AuthenticationError, errors.PermissionDeniedError)
            if isinstance(error, lasting):
                return DeliveryError(f"{path}: {_explain(error, settings, self.address)}")
            if isinstance(error, errors.FileIntegrityError):
                return DeliveryError(
                    f"{path}: the hub at {self.address} keeps serving other bytes than it lists: "
                    f"try later, or set {settings.endpoint_setting} to another mirror"
                )
        path, error = next(iter(sorted(failures.items())))
        return TransientError(f"{path}: {_explain(error, settings, self.address)}")


def _no_space(path: str) -> str:
    return f"{path}: the volume is full: free space on the disk under Docker's volumes and run this again to go on"


def _explain(error: BaseException, settings: Settings, address: str) -> str:
    """The line for a client's error."""
    from modelscope_hub import errors  # noqa: PLC0415  # slow, see above

    if isinstance(error, errors.NotExistError):
        return f"MODEL_ID: {address} has no model {settings.model_id!r} (404): check the spelling on the hub's page"
    if isinstance(error, (errors.AuthenticationError, errors.PermissionDeniedError)):
        return (
            f"MODEL_TOKEN: {address} denies access to {settings.model_id} ({error.status_code}): set a token "
            "whose owner has accepted the model's terms"
        )
    if isinstance(error, errors.APIError):
        return f"{address} answers {error.status_code}: try again later"
    if isinstance(error, errors.NetworkError):
        return (
            f"{settings.endpoint_setting}: cannot reach {address} ({_root_cause(error)}): check the address, the "
            "network and the proxy"
        )
    return f"{type(error).__name__}: {error}"


def _root_cause(error: BaseException) -> str:
    """The words of the operating system, from under the layers of clients: `Connection refused`."""
    seen = ""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.strerror:
            seen = link.strerror
        reason = getattr(link, "reason", None)
        link = link.__cause__ or link.__context__ or (reason if isinstance(reason, BaseException) else None)
    return seen or type(error).__name__


def _adopt_log(name: str) -> None:
    """Let the client's warnings through in our form, and nothing below them."""
    logger = logging.getLogger(name)
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.WARNING)
