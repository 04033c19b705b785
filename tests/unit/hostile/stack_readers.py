"""Targets of the containers: settings, files on the volume, answers of a hub."""

from __future__ import annotations

import http.server
import shutil
import threading
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any

import api_access
import engine_settings
from delivery import checks, volume
from delivery import manifest as delivery_manifest
from delivery import settings as delivery_settings
from delivery.listing import TransientError, select
from delivery.model_files import ModelFiles
from delivery.settings import DeliveryError
from delivery.sources import Source, open_source
from engine_environment import adopt
from failure_causes import explain

from tests.unit.hostile.hostile_input import Hostile, environment, scratch, scratch_file

ENGINE_NAMES = (
    *("ENGINE_DEVICE", "MODEL_ID", "SERVED_MODEL_NAME", "MAX_MODEL_LEN", "DTYPE", "CHAT_TEMPLATE"),
    *("TENSOR_PARALLEL_SIZE", "CPU_KV_CACHE_GIB", "GPU_MEMORY_UTILIZATION", "SLO_TTFT_MS", "SLO_TPOT_MS"),
    *("VLLM_EXTRA_ARGS", "BIND_ADDRESS", "VLLM_API_KEY", "VLLM_API_KEY_FILE", "ENGINE_ENV", "GPU_IDS"),
)
MODEL_NAMES = (
    *("MODEL_SOURCE", "MODEL_ID", "MODEL_REVISION", "MODELSCOPE_ENDPOINT", "HF_ENDPOINT", "MODEL_TOKEN"),
    *("MODEL_ALLOW_PATTERNS", "MODEL_IGNORE_PATTERNS", "MODEL_STALL_TIMEOUT_S", "CHAT_TEMPLATE", "BIND_ADDRESS"),
)


def engine_environment(data: bytes) -> None:
    """Engine settings: a SettingError of one line, or valid arguments for vLLM."""
    env = {"MODEL_ID": "a/b", **environment(data, ENGINE_NAMES)}
    try:
        api_access.adopt_key(env)
        api_access.check(env)
        adopt(env)
        settings = engine_settings.read(env)
        arguments = engine_settings.arguments(settings)
    except engine_settings.SettingError as error:
        assert "\n" not in str(error).strip(), error
        return
    assert all(isinstance(argument, str) and "\0" not in argument for argument in arguments)
    assert sum(argument.startswith("--max-model-len=") for argument in arguments) == 1


def model_environment(data: bytes) -> None:
    """Delivery settings: a DeliveryError of one line, or paths inside the volume."""
    try:
        settings = delivery_settings.read(environment(data, MODEL_NAMES))
    except DeliveryError as error:
        assert "\n" not in str(error), error
        return
    assert ".." not in settings.revision
    folder = volume.folder_of(settings)
    assert folder.is_relative_to(settings.volume / volume.STORE)
    assert ".." not in folder.parts
    assert ".." not in volume.link_of(settings).parts


def manifest(data: bytes) -> None:
    """A manifest with a fitting READY: complete or not, but never an exception."""
    folder = scratch() / "manifest"
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_bytes(data)
    (folder / "READY").write_text(delivery_manifest._digest(data.decode("utf-8", "replace")))
    found = delivery_manifest.read_ready(folder)
    assert found is None or found.size >= 0


@cache
def _model_folder() -> tuple[Path, delivery_settings.Settings]:
    folder = scratch() / "model"
    return folder, delivery_settings.read({"MODEL_ID": "a/b-instruct", "MODEL_VOLUME": str(scratch())})


def model_files(data: bytes) -> None:
    """A downloaded model's JSON files: problems as text, no access outside the folder."""
    folder, settings = _model_folder()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    kind, content = data[:1], data[1:]
    names = ("config.json", "model.safetensors.index.json", "tokenizer_config.json", "model.safetensors")
    name = names[(kind[0] if kind else 0) % len(names)]
    head = len(content).to_bytes(8, "little") if name == "model.safetensors" else b""
    # A whole model else, so that every check is reached.
    whole = {"config.json": b"{}", "model.safetensors": b"\x02" + bytes(7) + b"{}", "tokenizer.json": b"{}"}
    for path, there in {**whole, name: head + content}.items():
        (folder / path).write_bytes(there)
    for problem in checks.problems(ModelFiles.in_folder(folder), settings):
        assert isinstance(problem, str)


def engine_model_files(data: bytes) -> None:
    """A model's config.json, read by the engine's memory check."""
    config = scratch_file("config.json", data)

    class Here(engine_settings.Settings):
        model_path = config.parent

    read = engine_settings.read({"MODEL_ID": "a/b"})
    here = Here(**{name: getattr(read, name) for name in read.__dataclass_fields__})
    try:
        engine_settings.check_memory(here, 2**40)
    except engine_settings.SettingError as error:
        assert "\n" not in str(error)


def engine_log(data: bytes) -> None:
    """An engine's log: always one line of explanation."""
    text = data.decode("utf-8", "replace")
    assert "\n" not in explain(text, 1)


class _Hub(http.server.BaseHTTPRequestHandler):
    """Hub that answers every request with the bytes under test."""

    status = 200
    body = b""
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one segment: two would wait for each other 40 ms

    def do_GET(self) -> None:
        self.send_response(_Hub.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(_Hub.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(_Hub.body)

    do_POST = do_HEAD = do_GET  # noqa: N815  # names of the base class

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class names it so
        """Say nothing."""


@cache
def _source(kind: str) -> Source:
    hub = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{hub.server_port}"
    settings = {"MODEL_SOURCE": kind, "MODEL_ID": "a/b", "MODELSCOPE_ENDPOINT": address, "HF_ENDPOINT": address}
    folder = scratch() / kind
    folder.mkdir()
    return open_source(delivery_settings.read(settings), folder)


def _listing(kind: str, data: bytes) -> None:
    statuses = [status.value for status in HTTPStatus if status >= 400 and status != HTTPStatus.TOO_MANY_REQUESTS]
    first = data[0] if data else 0
    # Mostly success: there are few errors to test.
    _Hub.status, _Hub.body = (200 if first < 224 else statuses[first % len(statuses)]), data[1:]
    try:
        listing = select(_source(kind).listing(), (), ())
    except (DeliveryError, TransientError) as error:
        assert str(error)
        return
    for file in listing.files:
        assert isinstance(file.path, str)
        assert isinstance(file.size, int)
        assert (Path("/v") / file.path).is_relative_to("/v")
        assert ".." not in Path(file.path).parts


def modelscope_answer(data: bytes) -> None:
    """ModelScope's file list by its client: paths inside the folder, or one of our errors."""
    _listing("modelscope", data)


def huggingface_answer(data: bytes) -> None:
    """Hugging Face's file list by its client: like ModelScope's."""
    _listing("huggingface", data)


TARGETS: dict[str, Hostile] = {
    "engine_settings": Hostile(
        engine_environment,
        [
            b"MAX_MODEL_LEN=2048\nDTYPE=half\nVLLM_EXTRA_ARGS=--max-num-seqs 64 --x 'a b'",
            b"CPU_KV_CACHE_GIB=1e3\nSLO_TTFT_MS=nan\nBIND_ADDRESS=0.0.0.0",
            b"ENGINE_DEVICE=gpu\nGPU_IDS=0, GPU-45cb\nENGINE_ENV=NCCL_DEBUG=INFO A='b c'\nSERVED_MODEL_NAME=a b",
        ],
    ),
    "model_settings": Hostile(
        model_environment,
        [
            b"MODEL_ID=Qwen/Qwen2-0.5B\nMODEL_REVISION=feature/x\nMODEL_ALLOW_PATTERNS=*.json, *.bin",
            b"MODEL_SOURCE=huggingface\nHF_ENDPOINT=http://hub:8080/\nMODEL_STALL_TIMEOUT_S=inf",
        ],
    ),
    "manifest": Hostile(
        manifest,
        [
            b'{"source":"local","id":"a/b","revision":"r","files":[{"path":"READY","size":64,"sha256":"x"}],"commit":""}',
            b'{"source":"","id":"","revision":"","files":[],"commit":"","allow":[],"ignore":[]}',
            b"[" * 100_000,
        ],
    ),
    "model_files": Hostile(
        model_files,
        [
            b'\x00{"torch_dtype":"float32"}',
            b'\x01{"weight_map":{"a":"model-1.safetensors","b":"../../x"}}',
            b'\x02{"chat_template":"x"}',
            b'\x03{"__metadata__":{},"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            b"\x00" + b"[" * 100_000,
        ],
    ),
    "engine_model_files": Hostile(engine_model_files, [b'{"torch_dtype":"float16"}', b"[]", b"[" * 100_000]),
    "engine_log": Hostile(
        engine_log,
        [
            b"ValueError: max_model_len (9) is greater than the derived max_model_len (max_position_embeddings=8)",
            b"vllm serve: error: argument --dtype: invalid choice: 'x'\nRuntimeError: {flag}",
        ],
    ),
    "modelscope_answer": Hostile(
        modelscope_answer,
        [
            b'\x00{"Code":200,"Data":{"Files":[{"Path":"config.json","Size":2,"Sha256":"x","Type":"blob"}]},"Success":true}',
            b'\x00{"Code":200,"Data":{"Files":[{"Path":"../../x","Size":-1,"Type":"blob"}],"TotalCount":1}}',
        ],
    ),
    "huggingface_answer": Hostile(
        huggingface_answer,
        [
            b'\x00{"id":"a/b","sha":"c"}',
            b'\x00[{"type":"file","path":"config.json","size":2,"oid":"x","lfs":{"oid":"y","size":2,"pointerSize":1}}]',
        ],
    ),
}
