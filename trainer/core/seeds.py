"""Seeds of a run's random streams."""

import hashlib


def stream_seed(seed: int, purpose: str) -> int:
    """A 64-bit seed for one of a run's random streams: split, init/<parameter>, order, dropout.

    Streams are separate so that, say, one more dropout layer changes no batch order (promise 2 of the README).
    """
    return int.from_bytes(hashlib.blake2b(f"{seed}/{purpose}".encode(), digest_size=8).digest(), "little")
