from types import SimpleNamespace
from typing import Any, cast

import httpx2
import pytest
from delivery.listing import TransientError
from delivery.settings import DeliveryError
from delivery.sources.huggingface import HuggingFace
from huggingface_hub.errors import HfHubHTTPError

SETTINGS = SimpleNamespace(address="http://hub", address_setting="HF_ENDPOINT", model_id="owner/name")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, DeliveryError), (403, DeliveryError), (404, DeliveryError), (429, TransientError), (500, TransientError)],
)
def test_status_decides_on_another_try(status: int, kind: type[Exception]) -> None:
    response = httpx2.Response(status, request=httpx2.Request("GET", "http://hub/file"))
    source = SimpleNamespace(_settings=SETTINGS)
    assert type(HuggingFace._explain(cast("Any", source), HfHubHTTPError("no", response=response))) is kind
