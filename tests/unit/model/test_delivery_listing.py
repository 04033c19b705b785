import pytest
from delivery.listing import Listing, RemoteFile, select
from delivery.settings import DeliveryError


def chosen(*paths: str, allow: tuple[str, ...] = (), ignore: tuple[str, ...] = ()) -> list[str]:
    listing = Listing(tuple(RemoteFile(path, 1) for path in paths))
    return [file.path for file in select(listing, allow, ignore).files]


def test_other_weights_skipped_with_safetensors() -> None:
    paths = ("config.json", "model.safetensors", "pytorch_model.bin", "original/consolidated.00.pth", "m.gguf")
    assert chosen(*paths) == ["config.json", "model.safetensors"]


def test_weights_of_a_step_are_kept() -> None:
    """A sentence-transformers model may have safetensors for one of its steps only."""
    paths = ("config.json", "model.safetensors", "pytorch_model.bin", "2_Dense/pytorch_model.bin")
    assert chosen(*paths) == ["config.json", "model.safetensors", "2_Dense/pytorch_model.bin"]
    paths = ("config.json", "pytorch_model.bin", "2_Dense/model.safetensors", "2_Dense/pytorch_model.bin")
    assert chosen(*paths) == ["config.json", "pytorch_model.bin", "2_Dense/model.safetensors"]


def test_weights_kept_without_safetensors() -> None:
    assert chosen("config.json", "pytorch_model.bin") == ["config.json", "pytorch_model.bin"]


def test_consolidated_weights_alone_are_kept() -> None:
    assert chosen("params.json", "consolidated.safetensors") == ["params.json", "consolidated.safetensors"]


def test_allowed_duplicates_are_kept() -> None:
    assert chosen("a.safetensors", "m.gguf", "x.json", allow=("*.gguf", "*.json")) == ["m.gguf", "x.json"]


def test_ignore_patterns_match_subfolders() -> None:
    assert chosen("a.json", "img/logo.png", ignore=("*.png",)) == ["a.json"]
    assert chosen("a.json", "img/logo.png", ignore=("img/*",)) == ["a.json"]


def test_patterns_have_sets_and_case() -> None:
    assert chosen("A.md", "a.md", "b.md", ignore=("[a]*",)) == ["A.md", "b.md"]


def test_reserved_names_are_skipped() -> None:
    assert chosen("manifest.json", "READY", "a/manifest.json") == ["a/manifest.json"]


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x"])
def test_paths_outside_folder_are_refused(path: str) -> None:
    with pytest.raises(DeliveryError, match="outside"):
        chosen("a.json", path)
