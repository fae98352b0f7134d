import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nexrl.errors import WeightSyncError
from nexrl.weights.bucket import Bucket
from nexrl.weights.manifest import Manifest, TensorSpec, check_fits
from nexrl.weights.plan import ALIGNMENT, Piece, bucket_size, buckets, payload_bytes

CPU = torch.device("cpu")
dtypes = st.sampled_from(["float32", "bfloat16", "float64", "int8", "complex128", "bool"])
specs = st.builds(TensorSpec, st.text(), dtypes, st.lists(st.integers(0, 9), max_size=3).map(tuple))
manifests = st.builds(
    Manifest, st.just(1), st.integers(1, 400).map(bucket_size), st.lists(specs, max_size=12).map(tuple)
)


@settings(deadline=None)
@given(manifests)
def test_every_byte_is_in_exactly_one_piece_and_no_bucket_overflows(manifest):
    covered = [0] * len(manifest.tensors)
    for pieces in buckets(manifest):
        end = 0
        for piece in pieces:
            assert piece.start == covered[piece.tensor]
            assert piece.offset >= end
            assert piece.offset % ALIGNMENT == piece.start % ALIGNMENT == 0
            assert piece.nbytes > 0
            covered[piece.tensor] += piece.nbytes
            end = piece.offset + piece.nbytes
        assert end <= payload_bytes(pieces) <= manifest.bucket_bytes
    assert covered == [tensor.nbytes for tensor in manifest.tensors]


@settings(deadline=None)
@given(manifests)
def test_buckets_are_filled(manifest):
    *full, _ = [*buckets(manifest), ()]
    assert all(payload_bytes(pieces) == manifest.bucket_bytes for pieces in full[:-1])


def test_a_tensor_larger_than_a_bucket_travels_in_pieces():
    manifest = Manifest(1, 64, (TensorSpec("a", "float32", (2,)), TensorSpec("b", "float32", (40,))))
    assert list(buckets(manifest)) == [
        (Piece(0, 0, 0, 8), Piece(1, 0, 16, 48)),
        (Piece(1, 48, 0, 64),),
        (Piece(1, 112, 0, 48),),
    ]


@pytest.mark.parametrize(("wanted", "got"), [(1, 16), (16, 16), (47, 32), (64 * 2**20, 64 * 2**20)])
def test_bucket_size_is_aligned(wanted, got):
    assert bucket_size(wanted) == got


def test_one_flipped_bit_breaks_the_checksum_and_so_does_another_place_or_version():
    pieces = (Piece(0, 0, 0, 60),)
    bucket = Bucket(128, CPU)
    bucket.piece(pieces[0]).copy_(torch.arange(60, dtype=torch.uint8))
    frame = bucket.seal(pieces, version=3, index=2)
    assert bucket.holds(pieces, version=3, index=2)
    assert not bucket.holds(pieces, version=4, index=2)
    assert not bucket.holds(pieces, version=3, index=1)
    for word in range(len(frame)):
        for bit in (0, 31, 63):
            flip = torch.tensor([1], dtype=torch.int64) << bit
            frame[word : word + 1] ^= flip
            assert not bucket.holds(pieces, version=3, index=2)
            frame[word : word + 1] ^= flip
    assert bucket.holds(pieces, version=3, index=2)


def test_the_checksum_wraps_around():
    pieces = (Piece(0, 0, 0, 64),)
    bucket = Bucket(64, CPU)
    bucket.piece(pieces[0]).fill_(0x7F)
    bucket.seal(pieces, version=2**31, index=10**6)
    assert bucket.holds(pieces, version=2**31, index=10**6)


def test_a_misfit_names_every_tensor_at_once():
    manifest = Manifest(
        5, 64, (TensorSpec("a", "float32", (2,)), TensorSpec("b", "float32", (3,)), TensorSpec("b", "float32", (3,)))
    )
    with pytest.raises(WeightSyncError) as caught:
        check_fits(manifest, {"b": torch.zeros(4), "c": torch.zeros(1)})
    message = str(caught.value)
    assert "version 5" in message
    for text in ("sent twice: b", "does not send: c", "does not have: a", "b has shape [3] at the trainer, [4]"):
        assert text in message


def test_many_misfits_are_counted():
    with pytest.raises(WeightSyncError, match="layer7 and 12 more"):
        check_fits(Manifest(1, 64, ()), {f"layer{i}": torch.zeros(1) for i in range(20)})


def test_an_unknown_dtype_is_refused():
    with pytest.raises(WeightSyncError, match="float31"):
        check_fits(Manifest(1, 64, (TensorSpec("a", "float31", (2,)),)), {"a": torch.zeros(2)})


def test_the_controllers_half_imports_without_torch():
    code = "import nexrl.weights, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
