"""Commands on the volume: list, verify, prune."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from . import volume
from .log import say
from .manifest import FileRecord, Manifest, read_ready, unready
from .settings import DeliveryError, Settings
from .transfer import sha256_of
from .volume import megabytes

_READERS = 2  # one reads while the other computes


@dataclass(frozen=True)
class Delivery:
    """One revision of one model on the volume; `manifest` is None while it is incomplete."""

    name: str
    source: str
    folder: Path
    size: int
    manifest: Manifest | None


def deliveries(root: Path) -> list[Delivery]:
    """All revisions on the volume, complete or not."""
    found = []
    for folder in sorted((root / volume.STORE).glob("*/*/*/*")):
        source, owner, name, revision = folder.relative_to(root / volume.STORE).parts
        title = f"{owner}/{name}@{unquote(revision)}"
        found.append(Delivery(title, source, folder, volume.bytes_in(folder), read_ready(folder)))
    return found


def list_models(settings: Settings) -> None:
    """Print the models on the volume."""
    found = deliveries(settings.volume)
    for delivery in found:
        state = "READY" if delivery.manifest else "incomplete"
        mark = "  <- the settings" if delivery.folder == volume.folder_of(settings) else ""
        print(f"{state:<10}  {megabytes(delivery.size):>10}  {delivery.source:<11}  {delivery.name}{mark}")
    free = megabytes(volume.free_bytes(settings.volume))
    print(f"{len(found)} on the volume, {megabytes(sum(delivery.size for delivery in found))}; {free} free")


def verify(settings: Settings) -> None:
    """Read the wanted model again and compare its digests.

    Deletes wrong files and READY, so that the next delivery fetches only those. Raises DeliveryError then.
    """
    folder = volume.folder_of(settings)
    manifest = read_ready(folder)
    if manifest is None:
        raise DeliveryError(f"{settings.name} is not complete on the volume: run `docker compose run --rm model`")
    wrong = []
    for record, good in _compare(folder, manifest):
        print(f"{'ok' if good else 'WRONG':<5}  {megabytes(record.size):>10}  {record.path}")
        if not good:
            wrong.append(record.path)
    if not wrong:
        print(f"{settings.name}: {len(manifest.files)} files, {megabytes(manifest.size)}, all as delivered")
        return
    volume.require_writable(settings.volume)
    with volume.locked(settings.volume, say):
        unready(folder)
        for path in wrong:
            (folder / path).unlink(missing_ok=True)
    raise DeliveryError(
        f"{settings.name}: {', '.join(wrong)} changed on the disk and was removed: run `docker compose run --rm model` "
        "to fetch it again, and look at the disk's health"
    )


def prune(settings: Settings, *, sure: bool) -> None:
    """Delete every model but the wanted one, after a question. Raises DeliveryError when nobody can answer."""
    volume.require_writable(settings.volume)
    with volume.locked(settings.volume, say):
        wanted = volume.folder_of(settings)
        unwanted = [delivery for delivery in deliveries(settings.volume) if delivery.folder != wanted]
        if not unwanted:
            print(f"nothing to delete: the volume holds nothing but {settings.name}")
            return
        for delivery in unwanted:
            print(f"{megabytes(delivery.size):>10}  {delivery.source:<11}  {delivery.name}")
        total = megabytes(sum(delivery.size for delivery in unwanted))
        if read_ready(wanted) is None:
            say(f"note: the model of the settings, {settings.name}, is not complete on the volume")
        if not sure and not _agreed(f"Delete these {len(unwanted)}, {total}, and keep {settings.name}? [y/N] "):
            print("nothing deleted")
            return
        for delivery in unwanted:
            unready(delivery.folder)  # first: a half-deleted model must not look complete
            shutil.rmtree(delivery.folder)
        _drop_dead_links(settings.volume)
        print(f"deleted {total}")


def _compare(folder: Path, manifest: Manifest) -> Iterator[tuple[FileRecord, bool]]:
    with ThreadPoolExecutor(_READERS) as pool:
        digests = pool.map(lambda record: sha256_of(folder / record.path), manifest.files)
        for record, digest in zip(manifest.files, digests, strict=True):
            yield record, digest == record.sha256


def _agreed(question: str) -> bool:
    try:
        return input(question).strip().lower() in {"y", "yes"}
    except EOFError:
        print()  # ends the question's line
        raise DeliveryError("nobody to ask: run this at a terminal, or add --yes") from None


def _drop_dead_links(root: Path) -> None:
    for link in root.glob("*/*"):
        if link.is_symlink() and not link.exists():
            link.unlink()
    # Folders that are empty now, deepest first.
    for folder in sorted(root.glob(f"{volume.STORE}/**/"), key=lambda path: -len(path.parts)) + list(
        root.glob("[!.]*/")
    ):
        if not any(folder.iterdir()):
            folder.rmdir()
