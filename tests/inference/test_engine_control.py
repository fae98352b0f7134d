import contextlib
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import torch
from engine_parts import TOKEN, FakeReceiver, Listener, ask, forward_logprobs, prompt
from transformers import AutoModelForCausalLM

from nexrl.errors import WeightSyncError
from nexrl.inference import HttpEngineControl
from nexrl.inference.embedded import EngineServer, Sample


@pytest.fixture
def served(make_engine):
    """(server, receiver, control) of one engine."""
    engine = make_engine(start=False)
    receiver = FakeReceiver(engine)
    server = EngineServer(engine, token=TOKEN, model="tiny", receiver=receiver).start()
    with contextlib.closing(HttpEngineControl("inference-0", server.url, token=TOKEN, timeout=60)) as control:
        yield server, receiver, control
    server.stop()


def get(server, path):
    return httpx.get(server.url + path, headers={"Authorization": f"Bearer {TOKEN}"}).json()


def test_pause_lets_running_requests_finish_and_holds_new_ones_back(served):
    server, _, control = served
    engine = server.engine
    running, held = Listener(), Listener()
    engine.submit(ask(prompt(0), max_tokens=200, stream=True), running)
    running.wait(bool)
    control.pause()
    assert isinstance(running.events[-1], Sample)
    assert get(server, "/is_paused") == {"is_paused": True}
    engine.submit(ask(prompt(1)), held)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(control.pause)  # a second pause of an idle engine returns at once
        waiting.result(60)
    assert held.events == []
    control.resume()
    held.wait(bool)
    assert get(server, "/is_paused") == {"is_paused": False}


def test_a_request_that_began_finishes_all_its_samples_before_the_pause(make_engine):
    engine = make_engine(max_num_seqs=2)
    begun, new = Listener(), Listener()
    engine.submit(ask(prompt(0), seeds=range(7), max_tokens=40, stream=True), begun)
    begun.wait(bool)
    engine.pause()
    engine.submit(ask(prompt(1)), new)
    assert engine.wait_idle(60)
    assert sum(isinstance(event, Sample) for event in begun.events) == 7
    assert new.events == []


def test_new_weights_are_served_under_their_version(served, model_folders):
    server, receiver, control = served
    before = server.engine.generate(ask(prompt(0), max_tokens=12))[0]
    control.pause()
    control.init_transfer(master_address="127.0.0.1", master_port=1, rank=1, world_size=2, epoch=4)
    control.update_weights(version=3)
    assert get(server, "/weight_info") == {"weight_version": 3, "whole": True}
    control.resume()
    after = server.engine.generate(ask(prompt(0), max_tokens=12))[0]
    assert receiver.joined == [
        {"master_address": "127.0.0.1", "master_port": 1, "rank": 1, "world_size": 2, "epoch": 4}
    ]
    assert (before.version, after.version) == (0, 3)
    updated = AutoModelForCausalLM.from_pretrained(model_folders["qwen3"]).eval()
    with torch.no_grad():
        for name, weight in updated.named_parameters():
            weight.copy_(server.engine.parameters()[name])
    want = forward_logprobs(updated, prompt(0), after.token_ids)
    np.testing.assert_allclose(after.logprobs, want, atol=1e-5, rtol=0)
    assert np.abs(want - forward_logprobs(updated, prompt(0), before.token_ids)).max() > 1e-3


def test_an_update_needs_a_pause(served):
    server, _, control = served
    with pytest.raises(WeightSyncError, match=r"inference-0 .*/update_weights: HTTP 409: .*paused"):
        control.update_weights(version=1)
    assert server.engine.version == 0


def test_weights_that_did_not_arrive_whole_are_not_served(served):
    server, receiver, control = served
    control.pause()
    receiver.error = WeightSyncError("checksum of bucket 3 differs")
    with pytest.raises(WeightSyncError, match=r"HTTP 500: weights 1: checksum of bucket 3 differs"):
        control.update_weights(version=1)
    with pytest.raises(WeightSyncError, match=r"HTTP 409: .*did not finish"):
        control.resume()
    receiver.error = None
    control.update_weights(version=1)
    control.resume()
    assert server.engine.generate(ask(prompt(0)))[0].version == 1


def test_a_receiver_that_does_not_commit_is_found_out(served, monkeypatch):
    _, receiver, control = served
    monkeypatch.setattr(receiver, "receive", lambda **_: None)
    control.pause()
    with pytest.raises(WeightSyncError, match="not committed"):
        control.update_weights(version=1)


def test_commit_while_requests_run_is_refused(make_engine):
    engine = make_engine()
    running = Listener()
    engine.submit(ask(prompt(0), max_tokens=240, stream=True), running)
    running.wait(bool)
    with pytest.raises(WeightSyncError, match="requests run"):
        engine.commit(1)


def test_an_engine_without_a_receiver_says_so(server):
    with (
        contextlib.closing(HttpEngineControl("inference-1", server.url, token=TOKEN, timeout=60)) as control,
        pytest.raises(WeightSyncError, match=r"HTTP 501: .*without a weight receiver"),
    ):
        control.update_weights(version=1)


def test_a_pause_that_takes_too_long_ends_in_an_error(served):
    server, _, control = served
    server.engine.submit(ask(prompt(0), max_tokens=240), Listener())
    with (
        contextlib.closing(HttpEngineControl("inference-0", server.url, token=TOKEN, timeout=0)) as hasty,
        pytest.raises(WeightSyncError, match=r"HTTP 504: paused, but requests still run"),
    ):
        hasty.pause()
    control.pause()


def test_a_dead_engine_is_named(served):
    server, _, control = served
    server.stop()
    with pytest.raises(WeightSyncError, match=rf"inference-0 \({server.url}\): /resume: ConnectError"):
        control.resume()
