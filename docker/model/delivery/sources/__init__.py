"""Sources of models: one module each, with the source's official client."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from delivery.listing import Listing, RemoteFile
from delivery.model_files import ModelFiles
from delivery.settings import Settings


class Source(Protocol):
    """One revision of one model at one source."""

    def listing(self) -> Listing:
        """Every file of the revision. Raises DeliveryError, or TransientError where a retry may help."""
        ...

    def look(self, wanted: Sequence[RemoteFile]) -> AbstractContextManager[ModelFiles]:
        """The wanted files before they are fetched, readable where that costs no download. Raises DeliveryError."""
        ...

    def fetch(self, wanted: Sequence[RemoteFile], skipped: Sequence[RemoteFile], folder: Path) -> dict[str, str]:
        """Fetch the wanted files into `folder`, continuing an earlier try; return SHA-256 by path.

        Compares every digest of the listing. Raises DeliveryError, or TransientError where a retry may help.
        """
        ...


def open_source(settings: Settings, scratch: Path) -> Source:
    """Open the wanted source; `scratch` is a folder for its client's own state."""
    # Imported late: each client is slow to load.
    match settings.source:
        case "huggingface":
            from .huggingface import HuggingFace  # noqa: PLC0415

            return HuggingFace(settings, scratch)
        case "local":
            from .local import Local  # noqa: PLC0415

            return Local(settings)
        case _:
            from .modelscope import ModelScope  # noqa: PLC0415

            return ModelScope(settings, scratch)
