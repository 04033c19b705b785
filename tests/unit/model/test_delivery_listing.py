import pytest
from delivery.listing import Listing, RemoteFile, select
from delivery.settings import DeliveryError


def chosen(*paths: str, allow: tuple[str, ...] = (), ignore: tuple[str, ...] = ()) -> list[str]:
    listing = Listing(tuple(RemoteFile(path, 1) for path in paths))
    return [file.path for file in select(listing, allow, ignore).files]


def test_other_forms_of_the_weights_are_left_out_beside_safetensors() -> None:
    paths = ("config.json", "model.safetensors", "pytorch_model.bin", "original/consolidated.00.pth", "m.gguf")
    assert chosen(*paths) == ["config.json", "model.safetensors"]


def test_a_model_without_safetensors_keeps_its_weights() -> None:
    assert chosen("config.json", "pytorch_model.bin") == ["config.json", "pytorch_model.bin"]


def test_consolidated_weights_alone_are_no_duplicate() -> None:
    assert chosen("params.json", "consolidated.safetensors") == ["params.json", "consolidated.safetensors"]


def test_what_is_allowed_by_name_is_kept_though_it_doubles() -> None:
    assert chosen("a.safetensors", "m.gguf", "x.json", allow=("*.gguf", "*.json")) == ["m.gguf", "x.json"]


def test_ignored_patterns_reach_into_folders() -> None:
    assert chosen("a.json", "img/logo.png", ignore=("*.png",)) == ["a.json"]
    assert chosen("a.json", "img/logo.png", ignore=("img/*",)) == ["a.json"]


def test_brackets_in_a_pattern_are_a_set_and_case_counts() -> None:
    assert chosen("A.md", "a.md", "b.md", ignore=("[a]*",)) == ["A.md", "b.md"]


def test_the_volume_keeps_its_own_names() -> None:
    assert chosen("manifest.json", "READY", "a/manifest.json") == ["a/manifest.json"]


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x"])
def test_no_listing_writes_outside_of_the_models_folder(path: str) -> None:
    with pytest.raises(DeliveryError, match="outside"):
        chosen("a.json", path)
