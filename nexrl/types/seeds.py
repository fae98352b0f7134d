"""Random numbers keyed by what they are for, never by when or where they are drawn."""

from hashlib import blake2b


def derive_seed(*key: int | str) -> int:
    """A 63-bit seed for `key`, such as (root seed, group id, run id, turn): equal keys give equal seeds anywhere."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
