"""Keys and first tokens of a new platform."""

import stat
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tidewire_kit.errors import FailedPrecondition
from tidewire_registry.bootstrap import TOKEN_SECONDS, bootstrap, read_signer
from tidewire_testkit.clock import ManualClock

DAY_SECONDS = 86_400


def claims(file: Path) -> dict[str, object]:
    return jwt.decode(file.read_text().strip(), options={"verify_signature": False})


def test_everything_is_made_once_and_is_private(tmp_path: Path) -> None:
    clock = ManualClock()
    keys = bootstrap(tmp_path, clock=clock)
    files = (keys.signing_key_file, keys.service_token_file, keys.admin_token_file)
    assert keys.made == ("signing.pem", "service.token", "admin.token")
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600] * 3
    before = [file.read_bytes() for file in files]
    assert bootstrap(tmp_path, clock=clock).made == ()
    assert [file.read_bytes() for file in files] == before


def test_tokens_say_who_they_are_for(tmp_path: Path) -> None:
    clock = ManualClock()
    keys = bootstrap(tmp_path, clock=clock)
    signer = read_signer(keys.signing_key_file, clock)
    for file, role in ((keys.service_token_file, "service"), (keys.admin_token_file, "platform-admin")):
        said = claims(file)
        assert said["roles"] == [role]
        assert "tid" not in said
        assert said["exp"] == clock.now_us() // 1_000_000 + TOKEN_SECONDS
        assert jwt.get_unverified_header(file.read_text().strip())["kid"] == signer.key_id


def test_tokens_are_renewed_a_month_before_their_end(tmp_path: Path) -> None:
    clock = ManualClock()
    bootstrap(tmp_path, clock=clock)
    in_time = ManualClock(clock.now_us() + (TOKEN_SECONDS - 31 * DAY_SECONDS) * 1_000_000)
    assert bootstrap(tmp_path, clock=in_time).made == ()
    late = ManualClock(clock.now_us() + (TOKEN_SECONDS - 29 * DAY_SECONDS) * 1_000_000)
    assert bootstrap(tmp_path, clock=late).made == ("service.token", "admin.token")


def test_tokens_of_another_key_and_damaged_ones_are_replaced(tmp_path: Path) -> None:
    keys = bootstrap(tmp_path)
    keys.signing_key_file.unlink()
    assert bootstrap(tmp_path).made == ("signing.pem", "service.token", "admin.token")
    keys.admin_token_file.write_bytes(b"\xff\xfe")
    assert bootstrap(tmp_path).made == ("admin.token",)


def test_a_given_key_is_used_and_none_is_made(tmp_path: Path) -> None:
    given = tmp_path / "mine.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    given.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    keys = bootstrap(tmp_path / "data", signing_key_file=given)
    assert keys.made == ("service.token", "admin.token")
    assert not (tmp_path / "data" / "keys" / "signing.pem").exists()


@pytest.mark.parametrize("content", [None, b"", b"rubbish", "rsa"])
def test_a_key_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | str | None) -> None:
    given = tmp_path / "mine.pem"
    if content == "rsa":
        key = rsa.generate_private_key(65537, 2048)
        content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    if isinstance(content, bytes):
        given.write_bytes(content)
    with pytest.raises(FailedPrecondition) as caught:
        bootstrap(tmp_path / "data", signing_key_file=given)
    assert caught.value.reason == "SIGNING_KEY_UNUSABLE"
    assert str(given) in caught.value.message
    assert "TIDEWIRE_SIGNING_KEY_FILE" in caught.value.message
