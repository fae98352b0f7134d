import pytest
import torch
from training_parts import (
    make_model_folder,
    make_recipe,
    make_trajectories,
    make_worker,
    one_shard,
    rows_of,
    weights_of,
)
from transformers import AutoModelForCausalLM

from nexrl.config.schema import OptimConfig
from nexrl.errors import CheckpointError

TRAJECTORIES = make_trajectories((5, 9, 7, 12, 3, 8))
ROWS = rows_of(TRAJECTORIES)
OPTIM = OptimConfig(lr=1e-2, warmup_style="cosine", lr_warmup_steps=3)


def build(folder, **options):
    return make_worker(make_recipe(folder, **({"optim": OPTIM, "dtype": "float32"} | options)), TRAJECTORIES)


def train(worker, *steps):
    return [worker.update_actor(one_shard(ROWS, step=step, parts=2)).metrics for step in steps]


def save(worker, path, step, **options):
    worker.save_checkpoint(path, global_step=step, **options)
    worker.checkpoint_written().result()


def same(worker, other):
    theirs = dict(other.tensors())
    return all(torch.equal(tensor, theirs[name]) for name, tensor in worker.tensors())


def test_resumed_training_is_bit_exact(model_folder, tmp_path):
    worker = build(model_folder)
    train(worker, 1, 2)
    save(worker, tmp_path / "saved", 2)
    expected = train(worker, 3, 4)
    resumed = build(model_folder)
    assert resumed.load_checkpoint(tmp_path / "saved").global_step == 2
    assert train(resumed, 3, 4) == expected
    assert same(resumed, worker)
    assert resumed.worker_info().global_step == 4


def test_weights_may_change_while_a_checkpoint_is_written(model_folder, tmp_path):
    worker = build(model_folder)
    train(worker, 1)
    saved = weights_of(worker)
    worker.save_checkpoint(tmp_path / "saved", global_step=1)
    for _, tensor in worker.tensors():
        tensor.zero_()
    worker.checkpoint_written().result()
    resumed = build(model_folder)
    resumed.load_checkpoint(tmp_path / "saved")
    assert all(torch.equal(saved[name], tensor) for name, tensor in resumed.tensors())


def test_weights_alone(model_folder, tmp_path):
    worker = build(model_folder)
    train(worker, 1)
    save(worker, tmp_path / "weights", 1, weight_only=True)
    resumed = build(model_folder)
    assert resumed.load_checkpoint(tmp_path / "weights", weight_only=True).global_step == -1
    assert same(resumed, worker)
    with pytest.raises(CheckpointError, match=r"weights: has no optimizer\."):
        resumed.load_checkpoint(tmp_path / "weights")


def test_weights_of_a_whole_checkpoint_leave_the_optimizer_alone(model_folder, tmp_path):
    worker = build(model_folder)
    train(worker, 1)
    save(worker, tmp_path / "saved", 1)
    resumed = build(model_folder)
    resumed.load_checkpoint(tmp_path / "saved", weight_only=True)
    assert same(resumed, worker)
    for one in (worker, resumed):
        train(one, 2)
    assert not same(resumed, worker)  # the moments of step 1 are missing


def test_one_save_waits_for_the_other(model_folder, tmp_path):
    worker = build(model_folder)
    worker.save_checkpoint(tmp_path / "first", global_step=1)
    worker.save_checkpoint(tmp_path / "second", global_step=2)
    assert (tmp_path / "first" / ".metadata").is_file()
    worker.destroy()
    assert (tmp_path / "second" / ".metadata").is_file()


def test_checkpoints_that_do_not_fit_are_named_and_change_nothing(model_folder, tmp_path):
    worker = build(model_folder)
    before = weights_of(worker)
    with pytest.raises(CheckpointError, match=r"nowhere: found no \.metadata"):
        worker.load_checkpoint(tmp_path / "nowhere")
    deeper = build(make_model_folder(tmp_path / "deeper", layers=3))
    save(worker, tmp_path / "saved", 1)
    with pytest.raises(CheckpointError, match=r"saved: has no model\.model\.layers\.2\."):
        deeper.load_checkpoint(tmp_path / "saved")
    assert all(torch.equal(before[name], tensor) for name, tensor in worker.tensors())


def test_a_damaged_checkpoint_is_named(model_folder, tmp_path):
    worker = build(model_folder)
    save(worker, tmp_path / "saved", 1)
    for path in (tmp_path / "saved").glob("*.distcp"):
        path.unlink()
    with pytest.raises(CheckpointError, match="saved: rank 0: FileNotFoundError"):
        worker.load_checkpoint(tmp_path / "saved")
    (tmp_path / "saved" / ".metadata").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"saved: \.metadata cannot be read"):
        worker.load_checkpoint(tmp_path / "saved")


def test_a_checkpoint_that_cannot_be_written_is_named(model_folder, tmp_path):
    (tmp_path / "file").write_text("")
    worker = build(model_folder)
    with pytest.raises(CheckpointError, match="file/saved"):
        save(worker, tmp_path / "file" / "saved", 1)
    save(worker, tmp_path / "saved", 1)  # the next one is not hurt by it


@pytest.mark.parametrize("tied", [True, False])
def test_export_has_the_trained_weights(tmp_path, tied):
    worker = build(make_model_folder(tmp_path / "model", tied=tied))
    train(worker, 1)
    worker.export_hf(tmp_path / "hf")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "hf").state_dict()
    names = [name for name, _ in worker.tensors()]
    assert len(names) == len(set(names))
    assert ("lm_head.weight" in names) is not tied
    assert all(torch.equal(exported[name], tensor) for name, tensor in worker.tensors())
