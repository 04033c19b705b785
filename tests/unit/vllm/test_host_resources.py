from __future__ import annotations

from typing import TYPE_CHECKING

import host_resources
import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("limit", "available"), [("1073741824", 2**30), ("8589934592", 2**32), ("max", 2**32)])
def test_lower_of_host_and_container_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, available: int
) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:        8388608 kB\nMemAvailable:    4194304 kB\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{limit}\n")
    monkeypatch.setattr(host_resources, "Path", lambda path: tmp_path / path.removeprefix("/"))
    assert host_resources.available_memory_bytes() == available
