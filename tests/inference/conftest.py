"""Models on disk once, engines and servers per module or per test."""

import httpx
import pytest
from engine_parts import TOKEN, FakeReceiver, write_model
from transformers import AutoModelForCausalLM

from nexrl.inference.embedded import EmbeddedEngine, EngineServer, load_engine_model


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {name: write_model(root / name, name) for name in ("qwen3", "llama")}


@pytest.fixture(scope="session")
def plain_model(model_folders):
    """The Qwen3 model by transformers alone, to compare with."""
    return AutoModelForCausalLM.from_pretrained(model_folders["qwen3"]).eval()


@pytest.fixture
def make_engine(model_folders):
    """Started engines, ended with the test."""
    engines = []

    def make(architecture="qwen3", *, max_num_seqs=8, max_model_len=256, deterministic=False, start=True):
        engine = EmbeddedEngine(
            load_engine_model(model_folders[architecture]),
            max_num_seqs=max_num_seqs,
            max_model_len=max_model_len,
            deterministic=deterministic,
        )
        engines.append(engine)
        if start:
            engine.start()
        return engine

    yield make
    for engine in engines:
        engine.stop()


@pytest.fixture
def make_server(make_engine):
    """Started servers with a FakeReceiver, ended with the test."""
    servers = []

    def make(**sizes):
        engine = make_engine(start=False, **sizes)
        server = EngineServer(engine, token=TOKEN, model="tiny", receiver=FakeReceiver(engine)).start()
        servers.append(server)
        return server

    yield make
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def server(model_folders):
    """One server for the tests of a module that leave it as it was."""
    engine = EmbeddedEngine(load_engine_model(model_folders["qwen3"]), max_num_seqs=16, max_model_len=128)
    running = EngineServer(engine, token=TOKEN, model="tiny").start()
    yield running
    running.stop()


@pytest.fixture
def http(server):
    """A client of `server` with its token."""
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as client:
        yield client
