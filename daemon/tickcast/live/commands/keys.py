"""Who may give commands: the keys file, and signing with a key of one's own. It knows nothing of what is signed.

A key has one algorithm, which its entry states and no message can choose: a public key is never a secret.
"""

import base64
import binascii
import hmac
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec import Meta

from tickcast.errors import BadSettings

Algorithm = Literal["ed25519", "hmac-sha256"]
Role = Literal["read", "train", "promote", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)  # each includes those before it

KEY_BYTES = 32  # of an ed25519 key, and the least of a secret
SECRET_FILE_BYTES = 4096
SETTING = "control.keys_file"

KeyId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$(?!\n)", description="of the keys file")]
Keys = Mapping[str, "Key"]


@dataclass(frozen=True, slots=True)
class Key:
    """One that signs commands."""

    id: str
    algorithm: Algorithm
    role: Role
    material: bytes = field(repr=False)  # the public key, or the shared secret

    def has_signed(self, text: bytes, signature: bytes) -> bool:
        if self.algorithm == "hmac-sha256":
            return hmac.compare_digest(hmac.digest(self.material, text, "sha256"), signature)
        try:
            Ed25519PublicKey.from_public_bytes(self.material).verify(signature, text)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Signer:
    """The other side of a Key; its file holds one line, `ALGORITHM BASE64`."""

    algorithm: Algorithm
    secret: bytes = field(repr=False)

    def sign(self, text: bytes) -> bytes:
        if self.algorithm == "hmac-sha256":
            return hmac.digest(self.secret, text, "sha256")
        return Ed25519PrivateKey.from_private_bytes(self.secret).sign(text)

    def public(self) -> bytes:
        """What verifies; of an ed25519 key only."""
        return Ed25519PrivateKey.from_private_bytes(self.secret).public_key().public_bytes_raw()

    def line(self) -> str:
        return f"{self.algorithm} {base64.b64encode(self.secret).decode()}\n"


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: KeyId
    algorithm: Algorithm
    role: Role
    public: str = ""
    secret_file: str = ""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: list[_Entry]


def read_keys(path: Path, *, secrets: Path | None = None) -> dict[str, Key]:
    """By their ids. Whatever is wrong with the file or a secret is a BadSettings. Secrets lie beside it, or in a folder
    of their own.
    """
    keys: dict[str, Key] = {}
    for entry in _entries(path):
        key = Key(entry.id, entry.algorithm, entry.role, _material(entry, path, secrets or path.parent))
        if any(key.id == other.id or key.material == other.material for other in keys.values()):
            raise BadSettings(f"{SETTING} {path}: the key '{key.id}' is there twice", remedy="give each its own")
        keys[key.id] = key
    return keys


def secret_files(path: Path) -> list[str]:
    """Names of the files of secrets that a keys file speaks of, as they stand there."""
    return [entry.secret_file for entry in _entries(path) if entry.secret_file]


def read_signer(path: Path, *, named_by: str = SETTING) -> Signer:
    """A secret of its file, which nobody but its owner and group may read."""
    try:
        _refuse_open_to_others(path, stat.S_IROTH | stat.S_IWOTH, "read or written")
        with path.open("rb") as file:
            algorithm, _, text = file.read(SECRET_FILE_BYTES).decode().strip().partition(" ")
        secret = _decoded(text)
    except OSError as error:
        raise BadSettings(f"{named_by}: the secret {path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise BadSettings(f"{named_by}: {path} is not of the form `ALGORITHM BASE64`") from None
    if algorithm == "ed25519" and len(secret) == KEY_BYTES:
        return Signer("ed25519", secret)
    if algorithm == "hmac-sha256" and len(secret) >= KEY_BYTES:
        return Signer("hmac-sha256", secret)
    raise BadSettings(
        f"{named_by}: {path} holds no ed25519 key of {KEY_BYTES} bytes and no hmac-sha256 secret of that or more",
        remedy="`tickcast keygen` makes one",
    )


def _entries(path: Path) -> list[_Entry]:
    try:
        _refuse_open_to_others(path, stat.S_IWOTH, "written")
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), _File).keys
    except OSError as error:
        raise BadSettings(f"{SETTING} {path} cannot be read: {error.strerror}") from None
    except (ValueError, msgspec.ValidationError) as error:  # TOML and UTF-8 among them
        raise BadSettings(f"{SETTING} {path}: {error}", remedy="docs/control.md shows one") from None


def _material(entry: _Entry, path: Path, secrets: Path) -> bytes:
    where = f"{SETTING} {path}: the key '{entry.id}'"
    if entry.algorithm == "ed25519":
        if entry.secret_file or not entry.public:
            raise BadSettings(f"{where} is ed25519: it has `public` and no `secret_file`")
        try:
            public = _decoded(entry.public)
        except ValueError:
            public = b""
        if len(public) != KEY_BYTES:
            raise BadSettings(f"{where}: `public` is not the base64 of {KEY_BYTES} bytes")
        return public
    if entry.public or not entry.secret_file:
        raise BadSettings(f"{where} is hmac-sha256: it has `secret_file` and no `public`")
    signer = read_signer(secrets / entry.secret_file, named_by=where)
    if signer.algorithm != "hmac-sha256":
        raise BadSettings(f"{where} is hmac-sha256, its file holds {signer.algorithm}")
    return signer.secret


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _refuse_open_to_others(path: Path, forbidden: int, done: str) -> None:
    if path.stat().st_mode & forbidden:
        raise BadSettings(f"{SETTING}: {path} can be {done} by every user", remedy=f"chmod o-rw {path}")
