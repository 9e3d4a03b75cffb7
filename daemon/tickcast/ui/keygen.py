"""`tickcast keygen`: makes a key that signs commands, and the lines of the keys file that let it in."""

import base64
import os
import secrets
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tickcast.errors import BadSettings
from tickcast.live.commands.keys import KEY_BYTES, Algorithm, KeyId, Role, Signer


def keygen(id: str, *, role: Role, algorithm: Algorithm, out: Path) -> str:
    """Leave the secret in a new file that its owner alone may read; returns the lines of the keys file."""
    try:
        msgspec.convert(id, KeyId)
    except msgspec.ValidationError:
        raise BadSettings(f"'{id}' names no key", remedy="up to 64 letters, digits, - and _") from None
    is_pair = algorithm == "ed25519"
    secret = Ed25519PrivateKey.generate().private_bytes_raw() if is_pair else secrets.token_bytes(KEY_BYTES)
    signer, ours = Signer(algorithm, secret), False
    try:
        with os.fdopen(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            ours = True
            file.write(signer.line())
    except OSError as error:
        if ours:
            out.unlink(missing_ok=True)  # half a secret
        raise BadSettings(
            f"{out} cannot be written: {error.strerror}", remedy="name a file that is not there"
        ) from None
    proof = f'public = "{base64.b64encode(signer.public()).decode()}"' if is_pair else f'secret_file = "{out.name}"'
    return f'[[keys]]\nid = "{id}"\nalgorithm = "{algorithm}"\nrole = "{role}"\n{proof}\n'
