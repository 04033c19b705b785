import hashlib
import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airgap_hub.library import Library, NoSuchModelError, NoSuchRevisionError
from airgap_hub.server import HubServer

from tests.rig.running_hub import running_hub

CONTENT = bytes(range(256)) * 10
FILE = "/api/v1/models/o/m/repo?Revision=master&FilePath=w.bin"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("o/m", "o/m@v1"):
        (tmp_path / folder / "sub").mkdir(parents=True)
        (tmp_path / folder / "w.bin").write_bytes(CONTENT)
        (tmp_path / folder / "sub/x.json").write_text(folder)
    return tmp_path


@pytest.fixture
def hub(root: Path) -> Iterator[HubServer]:
    with running_hub(root) as server:
        yield server


def get(hub: HubServer, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", hub.server_port, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, dict(response.headers), response.read()
    finally:
        connection.close()


def set_faults(hub: HubServer, *faults: dict[str, Any]) -> None:
    assert hub.faults is not None
    hub.faults.replace(list(faults))


def test_range_returns_exact_bytes(hub: HubServer) -> None:
    status, headers, body = get(hub, FILE, Range="bytes=100-199")
    assert (status, headers["Content-Range"], body) == (206, f"bytes 100-199/{len(CONTENT)}", CONTENT[100:200])


def test_open_range_reaches_the_end(hub: HubServer) -> None:
    status, _, body = get(hub, FILE, Range="bytes=2000-")
    assert (status, body) == (206, CONTENT[2000:])


def test_range_past_the_end_is_refused(hub: HubServer) -> None:
    status, headers, _ = get(hub, FILE, Range=f"bytes={len(CONTENT)}-")
    assert (status, headers["Content-Range"]) == (416, f"bytes */{len(CONTENT)}")


def test_commit_changes_with_content(root: Path) -> None:
    library = Library(root)
    master, v1 = library.snapshot("o/m"), library.snapshot("o/m", "v1")
    assert master.commit != v1.commit
    assert library.snapshot("o/m", v1.commit) == v1


@pytest.mark.parametrize("model_id", ["o/none", "../etc", "o/..", "o"])
def test_only_models_in_the_folder_exist(root: Path, model_id: str) -> None:
    with pytest.raises(NoSuchModelError):
        Library(root).revisions(model_id)


def test_unknown_revision_and_unknown_model(root: Path) -> None:
    with pytest.raises(NoSuchRevisionError):
        Library(root).snapshot("o/m", "v9")


def test_file_outside_listing_is_refused(hub: HubServer, root: Path) -> None:
    (root / "secret").write_text("secret")
    status, _, _ = get(hub, "/api/v1/models/o/m/repo?Revision=master&FilePath=../../secret")
    assert status == 404


def test_changed_file_gets_a_new_digest(root: Path) -> None:
    library = Library(root)
    before = library.snapshot("o/m").file("w.bin")
    (root / "o/m/w.bin").write_bytes(CONTENT + b"x")
    after = library.snapshot("o/m").file("w.bin")
    assert before is not None
    assert after is not None
    assert before.sha256 != after.sha256


def test_token_is_required_when_set(hub: HubServer) -> None:
    hub.token = "t0k3n"  # noqa: S105  # of this test alone
    assert get(hub, FILE)[0] == 401
    assert get(hub, FILE, Authorization="Bearer t0k3n")[0] == 200
    assert get(hub, "/health")[0] == 200, "the container's own check has no token"


def test_cut_fault_closes_once(hub: HubServer) -> None:
    set_faults(hub, {"match": "w.bin", "cut_after": 1000})
    with pytest.raises(http.client.IncompleteRead) as caught:
        get(hub, FILE)
    assert caught.value.partial == CONTENT[:1000]
    assert get(hub, FILE)[2] == CONTENT


def test_corrupt_fault_flips_one_byte(hub: HubServer) -> None:
    set_faults(hub, {"match": "w.bin", "corrupt_at": 1500})
    _, _, body = get(hub, FILE, Range="bytes=1000-")
    assert [at for at, (is_, was) in enumerate(zip(body, CONTENT[1000:], strict=True)) if is_ != was] == [500]


def test_redirect_fault_keeps_the_bytes(hub: HubServer) -> None:
    set_faults(hub, {"match": "w.bin", "redirect": True})
    status, headers, _ = get(hub, FILE)
    assert status == 302
    assert get(hub, headers["Location"])[2] == CONTENT


def test_status_fault_sends_headers(hub: HubServer) -> None:
    set_faults(hub, {"match": "repo/files", "status": 429, "headers": {"Retry-After": "2"}})
    status, headers, _ = get(hub, "/api/v1/models/o/m/repo/files?Revision=master")
    assert (status, headers["Retry-After"]) == (429, "2")


def test_refuse_fault_sends_no_answer(hub: HubServer) -> None:
    set_faults(hub, {"match": "w.bin", "refuse": True})
    with pytest.raises(http.client.RemoteDisconnected):
        get(hub, FILE)


def test_fault_book_counts_sent_bytes(hub: HubServer) -> None:
    get(hub, FILE, Range="bytes=0-9")
    [entry] = json.loads(get(hub, "/faults")[2])["requests"]
    assert (entry["status"], entry["sent"], entry["range"]) == (206, 10, "bytes=0-9")


def test_invalid_fault_is_refused(hub: HubServer) -> None:
    with pytest.raises(TypeError):
        set_faults(hub, {"match": "x", "explode": True})


def test_faults_are_off_by_default(root: Path) -> None:
    server = HubServer(("127.0.0.1", 0), Library(root))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        assert get(server, "/faults")[0] == 404
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_hugging_face_lists_and_serves_files(hub: HubServer, root: Path) -> None:
    (root / "o/m/large.bin").write_bytes(bytes(2_000_000))
    commit = json.loads(get(hub, "/api/models/o/m/revision/main")[2])["sha"]
    entries = {entry["path"]: entry for entry in json.loads(get(hub, f"/api/models/o/m/tree/{commit}")[2])}
    assert set(entries) == {"large.bin", "sub/x.json", "w.bin"}
    assert entries["large.bin"]["lfs"]["oid"] == hashlib.sha256(bytes(2_000_000)).hexdigest()
    assert "lfs" not in entries["w.bin"]
    status, headers, body = get(hub, f"/o/m/resolve/{commit}/sub/x.json")
    assert (status, body, headers["X-Repo-Commit"]) == (200, b"o/m", commit)
    assert headers["ETag"] == f'"{hashlib.sha1(b"blob 3" + bytes(1) + b"o/m", usedforsecurity=False).hexdigest()}"'


def test_hugging_face_not_found_errors(hub: HubServer) -> None:
    paths = {
        "/api/models/o/none": "RepoNotFound",
        "/api/models/o/m/revision/v9": "RevisionNotFound",
        "/o/m/resolve/main/none.bin": "EntryNotFound",
    }
    answers = {path: get(hub, path) for path in paths}
    assert {path: answer[1]["X-Error-Code"] for path, answer in answers.items()} == paths
    assert {answer[0] for answer in answers.values()} == {404}


def test_hugging_face_names_every_revision(hub: HubServer) -> None:
    refs = json.loads(get(hub, "/api/models/o/m/refs")[2])
    assert [ref["name"] for ref in refs["branches"]] == ["main", "v1"]
