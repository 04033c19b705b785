"""Where models come from: one module a source, each with the client that the source's makers give out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from delivery.listing import Listing, RemoteFile
from delivery.settings import Settings


class Source(Protocol):
    """One revision of one model at one source."""

    def listing(self) -> Listing:
        """Every file of the revision. Raises DeliveryError, or TransientError when asking again may help."""
        ...

    def fetch(self, wanted: Sequence[RemoteFile], skipped: Sequence[RemoteFile], folder: Path) -> dict[str, str]:
        """Bring the wanted files into `folder`, going on where an earlier try ended; their SHA-256 by path.

        Every digest that the listing gives was compared. Raises DeliveryError when it cannot succeed,
        TransientError when another try may.
        """
        ...


def open_source(settings: Settings, scratch: Path) -> Source:
    """The wanted source; `scratch` is a folder for its client's own state."""
    # Imported one at a time: each brings its own client, which takes longer than everything else here.
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
