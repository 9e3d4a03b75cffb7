"""The keys file: what it may hold, and each mistake as one refusal that names the setting."""

from pathlib import Path

import pytest

from tickcast.errors import BadSettings
from tickcast.live.commands.keys import read_keys, read_signer
from tickcast.ui.keygen import keygen

PUBLIC = "A" * 43 + "="


def write(folder: Path, text: str, *, mode: int = 0o600) -> Path:
    path = folder / "keys.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def entry(**fields: str) -> str:
    given = {"id": "ops", "algorithm": "ed25519", "role": "admin", "public": PUBLIC} | fields
    return "[[keys]]\n" + "".join(f'{name} = "{value}"\n' for name, value in given.items() if value)


@pytest.mark.parametrize("algorithm", ["ed25519", "hmac-sha256"])
def test_a_key_that_was_made_verifies_what_it_signs(tmp_path: Path, algorithm: str) -> None:
    secret = tmp_path / "ops.key"
    lines = keygen("ops", role="promote", algorithm=algorithm, out=secret)  # type: ignore[arg-type]
    assert secret.stat().st_mode & 0o777 == 0o600
    (key,) = read_keys(write(tmp_path, lines)).values()
    signer = read_signer(secret)
    assert (key.id, key.role, key.algorithm) == ("ops", "promote", algorithm)
    assert key.has_signed(b"text", signer.sign(b"text"))
    assert not key.has_signed(b"texu", signer.sign(b"text"))
    assert not key.has_signed(b"text", b"")


def test_keygen_never_writes_over_a_key(tmp_path: Path) -> None:
    out = tmp_path / "ops.key"
    keygen("ops", role="read", algorithm="ed25519", out=out)
    before = out.read_bytes()
    with pytest.raises(BadSettings, match="cannot be written"):
        keygen("ops", role="read", algorithm="ed25519", out=out)
    assert out.read_bytes() == before
    with pytest.raises(BadSettings, match="names no key"):
        keygen('a"\nrole = "admin', role="read", algorithm="ed25519", out=tmp_path / "other")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "keys"),
        ("keys = 1", "array"),
        ("[[keys]", "keys.toml"),
        ("more = 1\n" + entry(), "more"),
        (entry(more="1"), "more"),
        (entry(role="root"), "root"),
        (entry(role=""), "role"),
        (entry(algorithm="none"), "none"),
        (entry(id="a.b"), "id"),
        (entry(public=""), "public"),
        (entry(public="AAAA"), "32 bytes"),
        (entry(public="!" * 44), "32 bytes"),
        (entry(secret_file="ops.key"), "no `secret_file`"),
        (entry(algorithm="hmac-sha256"), "no `public`"),
        (entry(algorithm="hmac-sha256", public=""), "secret_file"),
        (entry(algorithm="hmac-sha256", public="", secret_file="gone.key"), "gone.key"),
        (entry() + entry(), "twice"),
        (entry() + entry(id="other"), "twice"),
    ],
)
def test_each_mistake_is_refused_and_names_the_setting(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(BadSettings, match=r"control\.keys_file") as refused:
        read_keys(write(tmp_path, text))
    assert problem in str(refused.value)


@pytest.mark.parametrize(
    "text", ["", "hmac-sha256", "hmac-sha256 AAAA", "hmac-sha256 !!!!", "rot13 " + PUBLIC, "ed25519 " + PUBLIC, "\xff"]
)
def test_a_secret_that_is_none_or_of_another_algorithm_is_refused(tmp_path: Path, text: str) -> None:
    secret = tmp_path / "ops.key"
    secret.write_bytes(text.encode("latin-1"))
    secret.chmod(0o600)
    with pytest.raises(BadSettings, match=r"control\.keys_file"):
        read_keys(write(tmp_path, entry(algorithm="hmac-sha256", public="", secret_file="ops.key")))


def test_what_every_user_may_change_or_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="written by every user"):
        read_keys(write(tmp_path, entry(), mode=0o602))
    assert read_keys(write(tmp_path, entry(), mode=0o644))
    secret = tmp_path / "ops.key"
    keygen("ops", role="read", algorithm="hmac-sha256", out=secret)
    secret.chmod(0o604)
    with pytest.raises(BadSettings, match="read or written by every user"):
        read_signer(secret)
    secret.chmod(0o640)
    assert read_signer(secret)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"control\.keys_file .* cannot be read"):
        read_keys(tmp_path / "gone.toml")
