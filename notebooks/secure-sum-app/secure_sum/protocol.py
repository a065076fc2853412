"""Secure aggregation after Bonawitz et al. (2017), without a word of Flower.

https://eprint.iacr.org/2017/281. This is for learning. It keeps updates from a server
that is curious but follows the protocol, and from fewer clients than the threshold. It
does not authenticate keys, and lacks the consistency check against a server that lies.
"""

import os
from collections.abc import Mapping

import numpy as np
from Crypto.Protocol.SecretSharing import Shamir
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

Vector = np.ndarray  # of np.uint32: whole numbers modulo 2**32

CLIP = 8.0  # the largest weight of a model
MOST_EXAMPLES = 2**14  # fewer than these, of all clients together
SCALE = 2**14  # steps to one; CLIP * MOST_EXAMPLES * SCALE is 2**31


def by_number(record: Mapping[str, bytes]) -> dict[int, bytes]:
    """Return what a record holds for each client: the names in a record are str."""
    return {int(number): value for number, value in record.items()}


# -------------------------------------------------- floats become integers, and back


def encode(model: np.ndarray, num_examples: int, scale: float = SCALE) -> Vector:
    """Turn a model and its weight into integers that can be summed up."""
    if not np.isfinite(model).all():
        raise ValueError("A model with NaN or infinity cannot be encoded.")
    weighted = np.clip(model.astype(float), -CLIP, CLIP) * num_examples
    whole = np.rint(weighted * scale).astype(np.int64)
    return np.append(whole, num_examples).astype(np.uint32)  # modulo 2**32


def decode(total: Vector, scale: float = SCALE) -> tuple[np.ndarray, int]:
    """Return the weighted average, and the number of examples behind it."""
    signed = total.view(np.int32)  # the upper half stands for negative numbers
    num_examples = int(total[-1])
    return signed[:-1] / scale / num_examples, num_examples


# ------------------------------------------------------------------- keys and masks


def key_pair() -> tuple[bytes, bytes]:
    """Make a private key and its public one."""
    private = X25519PrivateKey.generate()
    raw = private.public_key().public_bytes_raw()
    return private.private_bytes_raw(), raw


def agree(private: bytes, public: bytes, purpose: bytes) -> bytes:
    """Return the key to which two clients come, each with its own private key."""
    own = X25519PrivateKey.from_private_bytes(private)
    secret = own.exchange(X25519PublicKey.from_public_bytes(public))
    return HKDF(SHA256(), length=32, salt=None, info=purpose).derive(secret)


def expand(key: bytes, length: int) -> Vector:
    """Stretch a key to a mask. No key may serve twice: the nonce is always 0."""
    stream = Cipher(ChaCha20(key, nonce=bytes(16)), mode=None).encryptor()
    return np.frombuffer(stream.update(bytes(4 * length)), dtype="<u4")


def pairwise_mask(
    me: int, private: bytes, publics: dict[int, bytes], length: int
) -> Vector:
    """Add up one client's masks with all others: the higher number of a pair adds."""
    mask = np.zeros(length, dtype=np.uint32)
    for other, public in publics.items():
        if other != me:
            pair = expand(agree(private, public, b"mask"), length)
            mask += pair if me > other else -pair
    return mask


# -------------------------------------------------------------- shares of a secret


def split(secret: bytes, threshold: int, count: int) -> list[bytes]:
    """Make shares of a secret of 32 bytes, for clients 1, 2, 3 and so on."""
    halves = [
        Shamir.split(threshold, count, half) for half in (secret[:16], secret[16:])
    ]
    return [first + second for (_, first), (_, second) in zip(*halves, strict=True)]


def restore(shares: dict[int, bytes], threshold: int) -> bytes:
    """Return the secret whose shares some clients have sent, by their numbers."""
    if len(shares) < threshold:
        raise ValueError(f"{len(shares)} shares are fewer than the {threshold} needed.")
    some = list(shares.items())[:threshold]
    return b"".join(
        Shamir.combine([(number, share[half]) for number, share in some])
        for half in (slice(16), slice(16, 32))
    )


def seal(key: bytes, sender: int, receiver: int, text: bytes) -> bytes:
    """Encrypt shares, so that the server can pass them on but not read them."""
    nonce = os.urandom(12)
    label = f"from {sender} to {receiver}".encode()
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, text, label)


def unseal(key: bytes, sender: int, receiver: int, sealed: bytes) -> bytes:
    """Decrypt shares; raises if a bit, the sender or the receiver is another."""
    label = f"from {sender} to {receiver}".encode()
    return ChaCha20Poly1305(key).decrypt(sealed[:12], sealed[12:], label)


# --------------------------------------------------------------- what the server does


def remove_masks(
    masked: dict[int, Vector],
    publics: dict[int, bytes],
    secrets: dict[int, bytes],
) -> Vector:
    """Return the sum: take off the survivors' own masks, add what others would have.

    ``secrets`` has the seed of the own mask of each client whose masked vector came,
    and the private key of each other one. ``publics`` are the keys for masks.
    """
    total = sum(masked.values(), start=np.uint32(0))
    survivors = {number: publics[number] for number in masked}
    for number, secret in secrets.items():
        if number in masked:
            total = total - expand(secret, len(total))
        else:  # the others' masks with it are still in the sum: its own cancel them
            total = total + pairwise_mask(number, secret, survivors, len(total))
    return total
