"""Delivers the wanted model: checks space, fetches, checks the files, and only then marks it READY."""

import os
import queue
import resource
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import tenacity

from . import checks, download_metrics, network, volume
from .download_progress import DownloadProgress
from .listing import Listing, TransientError, select
from .log import say
from .manifest import FileRecord, Manifest, read_ready, unready, write_ready
from .model_files import ModelFiles
from .settings import DeliveryError, Settings
from .sources import Source, open_source
from .volume import megabytes

_LINE_EVERY_S = 5.0
_LISTING_TRIES = 4  # 7 s in all: enough for a hub that is starting, short for a wrong address
_ROUNDS = 3  # of fetching files that are missing although the client reported success


def fetch(settings: Settings) -> None:
    """Make `/models/<MODEL_ID>` name a complete model. Raises DeliveryError; the next run continues from there."""
    if _finished(settings):
        return
    volume.require_writable(settings.volume)
    with volume.locked(settings.volume, say):
        if not _finished(settings):  # the run that held the lock may have delivered it
            _deliver(settings)


def _finished(settings: Settings) -> bool:
    manifest = read_ready(volume.folder_of(settings))
    if manifest is None or (manifest.allow, manifest.ignore) != (settings.allow, settings.ignore):
        return False
    volume.link(settings)
    say(f"{settings.name}: on the volume ({len(manifest.files)} files, {megabytes(manifest.size)})")
    return True


def _deliver(settings: Settings) -> None:
    volume.require_place(settings)
    folder = volume.folder_of(settings)
    scratch = settings.volume / volume.SCRATCH
    scratch.mkdir(exist_ok=True)
    if settings.source != "local":
        network.prepare(settings, os.environ)
    source = open_source(settings, scratch)
    everything = _ask(source)
    wanted = select(everything, settings.allow, settings.ignore)
    if not wanted.files:
        raise DeliveryError(f"MODEL_ALLOW_PATTERNS, MODEL_IGNORE_PATTERNS: they leave no file of {settings.name}")
    with source.look(wanted.files) as files:
        _require_servable(files, settings)
    folder.mkdir(parents=True, exist_ok=True)
    unready(folder)
    volume.sweep(folder, wanted.files)
    missing = max(wanted.size - volume.bytes_in(folder), 0)
    say(
        f"{settings.name}: {len(wanted.files)} of {len(everything.files)} files, {megabytes(wanted.size)} at "
        f"{settings.address}; {megabytes(missing)} to fetch, {megabytes(volume.free_bytes(folder))} free"
    )
    volume.require_space(folder, missing=missing)
    progress = DownloadProgress(folder, wanted.files)
    with download_metrics.published(settings.model_id, progress):
        digests = _while_watching(
            lambda: _fetch_until_there(source, everything, wanted, folder), progress, settings.stall_timeout_s
        )
        # Before the page closes, which takes up to half a second. The kernel counts in KiB.
        peak = megabytes(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        say(f"{progress.line()}: {progress.summary()}, peak memory {peak}")
    volume.sweep(folder, wanted.files)
    _require_servable(ModelFiles.in_folder(folder), settings)
    records = tuple(FileRecord(file.path, file.size, digests[file.path]) for file in wanted.files)
    manifest = Manifest(
        settings.source, settings.model_id, settings.revision, records, wanted.commit, settings.allow, settings.ignore
    )
    write_ready(folder, manifest)
    volume.link(settings)
    shutil.rmtree(scratch)
    say(f"{settings.name}: READY")


def _require_servable(files: ModelFiles, settings: Settings) -> None:
    """Raise DeliveryError when the engine could not serve these files, as far as they can be read."""
    if found := checks.problems(files, settings):
        setting = settings.address_setting if settings.source == "local" else "MODEL_ID"
        raise DeliveryError(f"{setting}: {settings.name} cannot be served: {'; '.join(found)}")


def _ask(source: Source) -> Listing:
    """The source's listing, after some retries. Raises DeliveryError."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TransientError),
        wait=tenacity.wait_exponential(multiplier=1),
        stop=tenacity.stop_after_attempt(_LISTING_TRIES),
        before_sleep=_say_retry,
        reraise=True,
    )
    try:
        return retrying(source.listing)
    except TransientError as error:
        raise DeliveryError(str(error)) from error


def _fetch_until_there(source: Source, everything: Listing, wanted: Listing, folder: Path) -> dict[str, str]:
    """Fetch every wanted file; return SHA-256 by path.

    Retries without a limit: the caller ends a download that stalls. A client's success is checked against the listing,
    and missing files are fetched again.
    """
    skipped = [file for file in everything.files if file not in wanted.files]
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(TransientError),
        wait=tenacity.wait_exponential_jitter(initial=1, max=60),
        before_sleep=_say_retry,
    )
    for _ in range(_ROUNDS):
        digests = retrying(source.fetch, wanted.files, skipped, folder)
        absent = checks.unlike_listing(folder, wanted.files)
        if not absent:
            return digests
        for path, problem in absent.items():
            say(f"{path} {problem}: fetching it again")
            (folder / path).unlink(missing_ok=True)
    raise DeliveryError(f"{', '.join(absent)}: the source lists more than it gives: try another mirror or revision")


def _say_retry(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    say(f"trying again in {state.upcoming_sleep:.0f} s: {error}")


def _while_watching(
    work: Callable[[], dict[str, str]], progress: DownloadProgress, stall_timeout_s: float
) -> dict[str, str]:
    """Run `work` in a thread and log its progress. Raises its errors, or DeliveryError when it stalls."""
    outcome: queue.SimpleQueue[dict[str, str] | BaseException] = queue.SimpleQueue()

    def worker() -> None:
        try:
            outcome.put(work())
        except BaseException as error:  # noqa: BLE001  # raised again in the waiting thread
            outcome.put(error)

    # A daemon: a client that hangs must not keep the process alive.
    threading.Thread(target=worker, daemon=True).start()
    while True:
        try:
            result = outcome.get(timeout=min(_LINE_EVERY_S, stall_timeout_s))
        except queue.Empty:
            progress.update()
            if progress.stalled_s > stall_timeout_s:
                raise DeliveryError(
                    f"nothing new for {progress.stalled_s:.0f} s (MODEL_STALL_TIMEOUT_S): check the network and the "
                    "hub, then run this again to go on"
                ) from None
            say(progress.line())
            continue
        progress.update()
        if isinstance(result, BaseException):
            raise result
        return result
