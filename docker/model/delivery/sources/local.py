"""A mounted folder or archive as a source."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from delivery.kinds import looks_like_a_model
from delivery.listing import Listing, RemoteFile
from delivery.model_files import ModelFiles
from delivery.settings import SOURCES, DeliveryError, Settings
from delivery.transfer import HashingFile, place_all

from .holders import Holder, opened

_BLOCK = 1 << 20
# Endings that clients give to a file while they write it, by the hubs' clients, curl, wget, browsers.
_UNFINISHED = (".incomplete", ".part", ".crdownload", ".download", ".tmp")
# Endings of a model's files: another name's half is somebody's leftover, of no interest.
_PARTS = (".safetensors", ".bin", ".pt", ".json", ".model", ".txt", ".jinja", ".tiktoken")
_ARIA2 = ".aria2"  # beside the file itself, which has its full size from the beginning
# What macOS adds to zip archives, and every disk of Linux has at its top; hidden files are junk too.
_JUNK = ("__MACOSX", "lost+found")


class Local:
    """Copies a model from the mount; there are no digests to compare with."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = Path(settings.address)

    def listing(self) -> Listing:
        """Every file of the model; those that cannot be read are only found by `look`."""
        with self._holder() as (holder, root):
            sizes = {path: holder.sizes.get(root + path, 0) for path in self._own(holder, root)}
        if not sizes:
            raise DeliveryError(
                f"{self._settings.address_setting}: {self._path} is empty: mount the model's folder there"
            )
        # In the archive's order: a compressed one can only be read forwards.
        return Listing(tuple(RemoteFile(path, size) for path, size in sizes.items()))

    @contextmanager
    def look(self, wanted: Sequence[RemoteFile]) -> Iterator[ModelFiles]:
        """The wanted files. Raises DeliveryError when one of them cannot be read."""
        with self._holder() as (holder, root):
            faults = self._own(holder, root)
            found = [f"{file.path}: {faults[file.path]}" for file in wanted if faults[file.path]]
            if found:
                more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
                raise DeliveryError(f"{self._settings.address_setting}: {found[0]}{more}")
            files = ModelFiles.listed(wanted)
            yield ModelFiles(files.sizes, lambda path: holder.open(root + path)) if holder.random_access else files

    def fetch(self, wanted: Sequence[RemoteFile], skipped: Sequence[RemoteFile], folder: Path) -> dict[str, str]:
        """Copy the wanted files."""
        del skipped
        with self._holder() as (holder, root):

            def write(file: RemoteFile, stream: HashingFile) -> None:
                with holder.open(root + file.path) as source:
                    source.seek(stream.tell())
                    while block := source.read(_BLOCK):
                        stream.write(block)

            placed: dict[str, str] = {}
            place_all(wanted, folder, write, workers=holder.workers, placed=placed)
            return placed

    @contextmanager
    def _holder(self) -> Iterator[tuple[Holder, str]]:
        """The folder or archive, and the prefix of the model's paths in it."""
        with opened(self._path, self._settings.address_setting) as holder:
            yield holder, self._root(holder)

    def _root(self, holder: Holder) -> str:
        """Prefix of the model's own folder; empty for the mount itself."""
        paths = [path for path in holder.sizes if not _is_junk(path)]
        root = ""
        while not looks_like_a_model(ModelFiles(dict.fromkeys(_below(paths, root), 0))):
            tops = {PurePosixPath(path).parts[0] for path in _below(paths, root) if "/" in path}
            if "snapshots" in tops and tops & {"blobs", "refs"}:
                return f"{root}snapshots/{self._snapshot(holder, root)}/"
            # An archive is often made of the folder itself.
            if self._path.is_dir() or len(tops) != 1 or any("/" not in path for path in _below(paths, root)):
                return root
            root += f"{tops.pop()}/"
        return root

    def _snapshot(self, holder: Holder, root: str) -> str:
        """Name of the wanted snapshot in a repository's folder of Hugging Face's cache."""
        there = sorted({path.split("/")[0] for path in _below(holder.sizes, f"{root}snapshots/")})
        wanted = self._settings.revision
        names = ["main"] if wanted == SOURCES["local"].default_revision else [wanted]
        for name in names:
            if f"{root}refs/{name}" in holder.sizes:
                with holder.open(f"{root}refs/{name}") as stream:
                    names.append(stream.read(100).decode(errors="replace").strip())
        found = [name for name in names if name in there] or (there if wanted not in names else [])
        if len(found) != 1:
            raise DeliveryError(
                f"MODEL_REVISION: {self._path} is a repository in Hugging Face's cache with the snapshots "
                f"{', '.join(there) or 'none'}: set MODEL_REVISION to the one to serve"
            )
        return found[0]

    def _own(self, holder: Holder, root: str) -> dict[str, str]:
        """The model's paths, each with its fault, empty for none; of half a file the name that it shall have."""
        own = {path: holder.faults.get(root + path, "") for path in _below(holder.sizes, root) if not _is_junk(path)}
        for path in list(own):
            for ending in (*_UNFINISHED, _ARIA2):
                whole = path.removesuffix(ending)
                if whole == path:
                    continue
                del own[path]
                if whole.endswith(_PARTS) and (ending == _ARIA2 or whole not in own):
                    own[whole] = f"half a download ({path}): let it end, or download it again"
        return own


def _below(paths: "Sequence[str] | dict[str, int]", root: str) -> list[str]:
    return [path.removeprefix(root) for path in paths if path.startswith(root)]


def _is_junk(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return any(part.startswith(".") and part != ".." for part in parts) or parts[0] in _JUNK
