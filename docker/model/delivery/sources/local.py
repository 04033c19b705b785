"""A mounted folder or archive as a source."""

import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Protocol, TypeVar, cast

from delivery.listing import Listing, RemoteFile
from delivery.settings import DeliveryError, Settings
from delivery.transfer import HashingFile, place_all

_BLOCK = 1 << 20
_Member = TypeVar("_Member")


class _Holder(Protocol):
    """A folder or archive: sizes by path, and a stream of each file."""

    workers: int  # files that can be read at a time

    def sizes(self) -> dict[str, int]: ...

    def open(self, path: str, offset: int) -> IO[bytes]: ...


class Local:
    """Copies a model from the mount; there are no digests to compare with."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = Path(settings.address)

    def listing(self) -> Listing:
        """Every file of the folder or archive."""
        with self._holder() as holder:
            sizes = holder.sizes()
        if not sizes:
            raise DeliveryError(
                f"{self._settings.address_setting}: {self._path} is empty: mount the model's folder there"
            )
        # In the archive's order: a compressed one can only be read forwards.
        return Listing(tuple(RemoteFile(path, size) for path, size in sizes.items()))

    def fetch(self, wanted: Sequence[RemoteFile], skipped: Sequence[RemoteFile], folder: Path) -> dict[str, str]:
        """Copy the wanted files."""
        del skipped
        with self._holder() as holder:

            def write(file: RemoteFile, stream: HashingFile) -> None:
                with holder.open(file.path, stream.tell()) as source:
                    while block := source.read(_BLOCK):
                        stream.write(block)

            placed: dict[str, str] = {}
            place_all(wanted, folder, write, workers=holder.workers, placed=placed)
            return placed

    @contextmanager
    def _holder(self) -> Iterator[_Holder]:
        setting = self._settings.address_setting
        try:
            if self._path.is_dir():
                yield _Folder(self._path)
            elif zipfile.is_zipfile(self._path):
                with zipfile.ZipFile(self._path) as archive:
                    yield _Zip(archive)
            elif tarfile.is_tarfile(self._path):
                with tarfile.open(self._path) as tar:
                    yield _Tar(tar)
            else:
                raise DeliveryError(f"{setting}: {self._path} is no folder, tar or zip archive")
        except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
            raise DeliveryError(f"{setting}: {self._path} is damaged ({error}): copy it here again") from error
        except FileNotFoundError as error:
            raise DeliveryError(f"{setting}: {self._path} is not there: mount the model's folder or archive") from error


class _Folder:
    workers = 2

    def __init__(self, root: Path) -> None:
        self._root = root

    def sizes(self) -> dict[str, int]:
        files = (path for path in self._root.rglob("*") if path.is_file())
        return {path.relative_to(self._root).as_posix(): path.stat().st_size for path in files}

    def open(self, path: str, offset: int) -> IO[bytes]:
        stream = (self._root / path).open("rb")
        stream.seek(offset)
        return stream


class _Zip:
    workers = 1  # one file pointer

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._members = _without_top_folder({info.filename: info for info in archive.infolist() if not info.is_dir()})

    def sizes(self) -> dict[str, int]:
        return {path: info.file_size for path, info in self._members.items()}

    def open(self, path: str, offset: int) -> IO[bytes]:
        stream = self._archive.open(self._members[path])
        stream.seek(offset)
        return stream


class _Tar:
    workers = 1  # one file pointer

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._members = _without_top_folder({info.name: info for info in archive if info.isfile()})

    def sizes(self) -> dict[str, int]:
        return {path: info.size for path, info in self._members.items()}

    def open(self, path: str, offset: int) -> IO[bytes]:
        stream = cast("IO[bytes]", self._archive.extractfile(self._members[path]))  # None: no file
        stream.seek(offset)
        return stream


def _without_top_folder(members: dict[str, _Member]) -> dict[str, _Member]:
    """Drop a first folder that all paths share: archives are often made of the folder itself."""
    paths = {name: PurePosixPath(name) for name in members}
    tops = {path.parts[0] for path in paths.values()}
    inside = len(tops) == 1 and all(len(path.parts) > 1 for path in paths.values())
    skip = 1 if inside else 0
    return {PurePosixPath(*path.parts[skip:]).as_posix(): members[name] for name, path in paths.items()}
