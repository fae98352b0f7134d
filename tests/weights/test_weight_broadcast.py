import pytest
import torch
from weight_parts import (
    BUCKET,
    CPU,
    Source,
    Target,
    make_receiver,
    make_sender,
    meet,
    random_tensors,
    update,
    zeros_like,
)

from nexrl.cluster.process_group import PrivateGroup, free_store
from nexrl.errors import TrainingError, WeightSyncError
from nexrl.weights.announcement import send_manifest
from nexrl.weights.bucket import bucket_for, flat_bytes
from nexrl.weights.calls import in_background
from nexrl.weights.manifest import Manifest, TensorSpec
from nexrl.weights.plan import buckets


def assert_equal(target, tensors):
    for name, tensor in tensors.items():
        assert torch.equal(target.by_name[name], tensor.to(target.by_name[name].dtype)), name


def test_every_tensor_arrives_bit_for_bit_in_many_buckets():
    tensors = random_tensors(1)
    source, target = Source(tensors), Target(zeros_like(tensors))
    sender, receiver = make_sender(source), make_receiver(target)
    manifest = Manifest(1, BUCKET, tuple(TensorSpec.of(name, tensor) for name, tensor in tensors.items()))
    assert len(list(buckets(manifest))) >= 5
    assert tensors["wide"].nbytes > 3 * BUCKET
    meet(sender, [receiver])
    sent, received = update(sender, [receiver], version=1)
    assert sent.result() == sum(tensor.nbytes for tensor in tensors.values())
    assert received.result() is None
    assert target.version == 1
    assert_equal(target, tensors)


@pytest.mark.parametrize(("ours", "theirs"), [("float32", "bfloat16"), ("float64", "float32"), ("bfloat16", "float32")])
def test_the_receiver_converts_to_its_own_dtype(ours, theirs):
    tensors = random_tensors(2, getattr(torch, ours))
    target = Target(zeros_like(tensors, getattr(torch, theirs)))
    sender, receiver = make_sender(Source(tensors)), make_receiver(target)
    meet(sender, [receiver])
    update(sender, [receiver], version=1)
    assert target.version == 1
    assert_equal(target, tensors)


def test_two_engines_take_repeated_updates_in_one_group_and_then_in_another():
    tensors = random_tensors(3)
    source = Source(tensors)
    targets = [Target(zeros_like(tensors)) for _ in range(2)]
    sender, receivers = make_sender(source), [make_receiver(target) for target in targets]
    for epoch, versions in ((1, (1, 2, 3)), (2, (4,))):
        meet(sender, receivers, epoch=epoch)
        for version in versions:
            for tensor in tensors.values():
                tensor.add_(1.0)
            for future in update(sender, receivers, version=version):
                future.result()
            assert [target.version for target in targets] == [version, version]
            for target in targets:
                assert_equal(target, tensors)
    assert source.walks == 5  # four updates, and the first walk that learns names and shapes


def test_the_group_may_grow_with_a_new_epoch():
    tensors = random_tensors(4)
    first, second = Target(zeros_like(tensors)), Target(zeros_like(tensors))
    sender, old, new = make_sender(Source(tensors)), make_receiver(first), make_receiver(second)
    meet(sender, [old], epoch=1)
    update(sender, [old], version=1)
    meet(sender, [old, new], epoch=2)
    update(sender, [old, new], version=1)
    assert (first.version, second.version) == (1, 1)
    assert_equal(second, tensors)


def test_tied_weights_travel_once_and_stay_tied():
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = torch.nn.Embedding(43, 16)
            self.head = torch.nn.Linear(16, 43, bias=False)
            self.head.weight = self.embed.weight

    trainer, engine = Tied(), Tied()
    target = Target(dict(engine.named_parameters()))
    sender, receiver = make_sender(Source(dict(trainer.named_parameters()))), make_receiver(target)
    meet(sender, [receiver])
    sent, _ = update(sender, [receiver], version=1)
    assert sent.result() == trainer.embed.weight.nbytes
    assert engine.head.weight is engine.embed.weight
    assert torch.equal(engine.head.weight, trainer.embed.weight)


def test_weights_loaded_in_inference_mode_are_overwritten_too():
    tensors = random_tensors(5)
    with torch.inference_mode():
        target = Target(zeros_like(tensors))
    sender, receiver = make_sender(Source(tensors)), make_receiver(target)
    meet(sender, [receiver])
    for future in update(sender, [receiver], version=1):
        future.result()
    assert_equal(target, tensors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("bias"), r"the trainer sends, the engine does not have: bias"),
        (lambda t: t.update(extra=torch.zeros(2)), r"the engine needs, the trainer does not send: extra"),
        (lambda t: t.update(bias=torch.zeros(8)), r"bias has shape \[7\] at the trainer, \[8\] at the engine"),
        (lambda t: t.update(bias=torch.zeros(7, dtype=torch.int64)), r"bias is float32 at the trainer, torch.int64"),
        (lambda t: t.update(wide=torch.zeros(33, 31).T), r"wide is not contiguous at the engine"),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_anything_is_overwritten(change, message):
    tensors = random_tensors(6)
    target = Target(zeros_like(tensors))
    change(target.by_name)
    source = Source(tensors)
    sender, receiver = make_sender(source, timeout=2.0), make_receiver(target, timeout=2.0)
    meet(sender, [receiver])
    sent, received = update(sender, [receiver], version=1)
    with pytest.raises(WeightSyncError, match=message):
        received.result()
    assert (target.version, target.invalid) == (0, "")
    assert all(not tensor.any() for tensor in target.by_name.values())
    with pytest.raises(WeightSyncError):
        sent.result()
    assert source.walks == 2  # exhausted all the same: other trainer ranks gather along


def test_another_version_than_announced_is_refused():
    tensors = random_tensors(7)
    target = Target(zeros_like(tensors))
    sender, receiver = make_sender(Source(tensors), timeout=2.0), make_receiver(target, timeout=2.0)
    meet(sender, [receiver])
    sent = in_background("send", lambda: sender.send(version=8))
    with pytest.raises(WeightSyncError, match="sends version 8, this engine was told 7"):
        receiver.receive(version=7)
    assert target.invalid == ""
    assert isinstance(sent.exception(60), WeightSyncError)


@pytest.mark.parametrize(("damaged", "overwritten"), [(0, False), (3, True)])
def test_a_damaged_bucket_is_never_served(damaged, overwritten):
    tensors = random_tensors(8)
    target = Target(zeros_like(tensors))
    sender, receiver = make_sender(Source(tensors)), make_receiver(target, timeout=5.0)
    store = free_store("127.0.0.1", timeout=5.0)
    receiver.join(master_address="127.0.0.1", master_port=store.port, rank=1, world_size=2, epoch=1)

    def send_damaged():
        group = PrivateGroup(store, rank=0, world_size=2, epoch=1, timeout=5.0, device=CPU)
        manifest = Manifest(1, BUCKET, tuple(TensorSpec.of(name, tensor) for name, tensor in tensors.items()))
        send_manifest(group, manifest, CPU)
        bucket, flats = bucket_for(manifest, CPU), [flat_bytes(tensor) for tensor in tensors.values()]
        for index, pieces in enumerate(buckets(manifest)):
            for piece in pieces:
                bucket.piece(piece).copy_(flats[piece.tensor][piece.start : piece.start + piece.nbytes])
            frame = bucket.seal(pieces, version=1, index=index)
            if index == damaged:
                frame[5] ^= 1 << 17
            group.broadcast(frame, 0)

    in_background("send damaged", send_damaged)
    with pytest.raises(WeightSyncError, match=rf"bucket {damaged} \(.*\) does not match its checksum"):
        receiver.receive(version=1)
    assert target.version == 0
    assert bool(target.invalid) is overwritten
    assert any(tensor.any() for tensor in target.by_name.values()) is overwritten

    meet(sender, [receiver], epoch=2)  # the next full update makes it good
    update(sender, [receiver], version=2)
    assert (target.version, target.invalid) == (2, "")
    assert_equal(target, tensors)


def test_a_source_that_fails_ends_the_update_at_both_ends():
    tensors = random_tensors(9)

    class Failing(Source):
        def tensors(self):
            for name, tensor in self.by_name.items():
                if name == "embed" and self.walks:
                    raise TrainingError("trainer-1 died while gathering")
                yield name, tensor
            self.walks += 1

    target = Target(zeros_like(tensors))
    sender, receiver = make_sender(Failing(tensors), timeout=3.0), make_receiver(target, timeout=3.0)
    meet(sender, [receiver])
    sent, received = update(sender, [receiver], version=1)
    with pytest.raises(TrainingError, match="trainer-1"):
        sent.result()
    with pytest.raises(WeightSyncError):
        received.result()
    assert target.version == 0
    assert "version 1 broke off" in target.invalid


def test_a_model_that_changes_its_form_is_refused_by_name():
    source = Source(random_tensors(10))
    target = Target(zeros_like(source.by_name))
    sender, receiver = make_sender(source, timeout=3.0), make_receiver(target, timeout=3.0)
    meet(sender, [receiver])
    update(sender, [receiver], version=1)
    source.by_name = {**source.by_name, "bias": torch.zeros(9)}
    sent, received = update(sender, [receiver], version=2)
    with pytest.raises(WeightSyncError, match="bias"):
        sent.result()
    assert isinstance(received.exception(), WeightSyncError)
    assert target.invalid


def test_other_trainer_ranks_only_gather():
    source = Source(random_tensors(11))
    sender = make_sender(source, rank=1)
    assert sender.send(version=1) == 0
    assert source.walks == 2
    with pytest.raises(WeightSyncError, match="rank 0 sends"):
        sender.open_group(world_size=2, epoch=1)


def test_a_member_that_never_comes_is_given_up_at_the_deadline():
    tensors = random_tensors(12)
    target = Target(zeros_like(tensors))
    sender, receiver = make_sender(Source(tensors), timeout=1.0), make_receiver(target, timeout=1.0)
    address = sender.open_group(world_size=3, epoch=1)
    receiver.join(master_address=address.address, master_port=address.port, rank=1, world_size=3, epoch=1)
    sent, received = update(sender, [receiver], version=1)
    for future in (sent, received):
        assert isinstance(future.exception(), WeightSyncError)
    assert (target.version, target.invalid) == (0, "")


def test_a_meeting_that_was_given_up_does_not_hold_the_next_one():
    tensors = random_tensors(14)
    target = Target(zeros_like(tensors))
    sender, receiver = make_sender(Source(tensors), timeout=60.0), make_receiver(target, timeout=60.0)
    sender.open_group(world_size=3, epoch=1)  # nobody comes, for a minute
    meet(sender, [receiver], epoch=2)
    for future in update(sender, [receiver], version=1):
        future.result(30)
    assert target.version == 1


def test_sending_or_receiving_outside_a_group_is_an_error():
    tensors = random_tensors(13)
    with pytest.raises(WeightSyncError, match="before a weight group was opened"):
        make_sender(Source(tensors)).send(version=1)
    with pytest.raises(WeightSyncError, match="in no weight group"):
        make_receiver(Target(tensors)).receive(version=1)
