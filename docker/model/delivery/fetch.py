"""Delivers the wanted model: checks before, fetches, checks after, and only then marks it READY."""

import hashlib
import queue
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import tenacity

from . import checks, volume
from .listing import RemoteFile, TransientError
from .progress import Progress
from .settings import DeliveryError, Settings

_LINE_EVERY_S = 5.0


class Source(Protocol):
    """Where a model comes from."""

    address: str

    def files(self) -> list[RemoteFile]: ...

    def fetch(self, files: Sequence[RemoteFile], skipped: Sequence[RemoteFile], folder: Path) -> None: ...


def fetch(settings: Settings) -> None:
    """Make `/models/<MODEL_ID>` name a complete model. Raises DeliveryError; running again goes on from there."""
    if _finished(settings):
        return
    volume.require_writable(settings.volume)
    with volume.locked(settings.volume, say):
        if not _finished(settings):  # the one we waited for may have done it
            _deliver(settings)


def say(line: str) -> None:
    """Print one line now, even into a pipe."""
    print(line, flush=True)


def _finished(settings: Settings) -> bool:
    manifest = volume.read_ready(volume.folder_of(settings))
    if manifest is None:
        return False
    volume.link(settings)
    say(f"{_name(settings)}: on the volume ({len(manifest.files)} files, {volume.megabytes(manifest.size)})")
    return True


def _name(settings: Settings) -> str:
    return f"{settings.model_id}@{settings.revision}"


def _deliver(settings: Settings) -> None:
    folder = volume.folder_of(settings)
    scratch = settings.volume / ".scratch"
    scratch.mkdir(exist_ok=True)
    source = _source(settings, scratch)
    files = source.files()
    folder.mkdir(parents=True, exist_ok=True)
    volume.unready(folder)
    total = sum(file.size for file in files)
    missing = max(total - volume.bytes_in(folder), 0)
    free = volume.megabytes(volume.free_bytes(folder))
    say(
        f"{_name(settings)}: {len(files)} files, {volume.megabytes(total)} at {source.address}; "
        f"{volume.megabytes(missing)} to fetch, {free} free"
    )
    volume.require_space(folder, missing=missing)
    progress = Progress(folder, files)
    _run(lambda: _fetch_until_done(source, files, folder), progress, settings.stall_timeout_s)
    say(f"{progress.line()}: {progress.summary()}")
    if found := checks.problems(folder, files):
        raise DeliveryError(f"{_name(settings)} is not whole: {'; '.join(found)}: run this again to fetch it anew")
    records = tuple(_record(folder, file) for file in files)
    volume.write_ready(folder, volume.Manifest(settings.source, settings.model_id, settings.revision, records))
    volume.link(settings)
    shutil.rmtree(scratch)
    say(f"{_name(settings)}: READY")


def _source(settings: Settings, scratch: Path) -> Source:
    # The clients are slow to import, and needed only now.
    from .sources.modelscope import ModelScope  # noqa: PLC0415

    return ModelScope(settings, scratch)


def _fetch_until_done(source: Source, files: Sequence[RemoteFile], folder: Path) -> None:
    """Try again for as long as it takes: the deadline is the caller's, who sees whether bytes still arrive."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TransientError),
        wait=tenacity.wait_exponential_jitter(initial=1, max=60),
        before_sleep=_say_retry,
    )
    retrying(source.fetch, files, (), folder)


def _say_retry(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    say(f"trying again in {state.upcoming_sleep:.0f} s: {error}")


def _run(work: Callable[[], None], progress: Progress, stall_timeout_s: float) -> None:
    """Do the work while lines tell how far it is. Raises what it raises, or DeliveryError when it stalls."""
    outcome: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def worker() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001  # it is raised again in the thread that waits
            outcome.put(error)
        else:
            outcome.put(None)

    threading.Thread(target=worker, daemon=True).start()
    while True:
        try:
            error = outcome.get(timeout=min(_LINE_EVERY_S, stall_timeout_s))
        except queue.Empty:
            progress.update()
            if progress.stalled_s > stall_timeout_s:
                raise DeliveryError(
                    f"no new byte for {progress.stalled_s:.0f} s (MODEL_STALL_TIMEOUT_S): check the network and the "
                    "hub, then run this again to go on"
                ) from None
            say(progress.line())
            continue
        progress.update()
        if error is not None:
            raise error
        return


def _record(folder: Path, file: RemoteFile) -> volume.FileRecord:
    """Take the digest that the client has compared; a source that lists none gets one from the file."""
    digest = file.sha256
    if digest is None:
        with (folder / file.path).open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return volume.FileRecord(file.path, file.size, digest)
