"""Key files: who may read them, what is refused, and that no private key is ever shown."""

import os
from pathlib import Path

import pytest
import zmq
import zmq.auth

from contrastream import main
from stream.errors import KeyFileError
from stream.keys import allow, allowed_clients, key_folder, load_pair, new_pair, read_public, revoke


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user without any key yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return key_folder()


def test_a_pair_is_for_its_user_alone_and_is_a_zeromq_certificate(folder: Path) -> None:
    before = os.umask(0)
    try:
        path = new_pair("room")
    finally:
        os.umask(before)
    assert sorted(entry.name for entry in folder.iterdir()) == ["allowed", "room.key", "room.key_secret"]
    modes = {entry.name: entry.stat().st_mode & 0o777 for entry in (folder, *folder.iterdir())}
    assert modes == {"keys": 0o700, "allowed": 0o700, "room.key": 0o600, "room.key_secret": 0o600}
    pair = load_pair("room")
    assert zmq.curve_public(pair.secret) == pair.public == read_public(str(path))
    assert zmq.auth.load_certificate(folder / "room.key_secret") == (pair.public, pair.secret)


def test_a_pair_is_never_replaced(folder: Path) -> None:
    new_pair("room")
    before = (folder / "room.key_secret").read_bytes()
    with pytest.raises(KeyFileError, match="needed a new label, got room"):
        new_pair("room")
    (folder / "room.key").unlink()
    with pytest.raises(KeyFileError, match="needed a new label, got room"):
        new_pair("room")
    assert (folder / "room.key_secret").read_bytes() == before
    assert sorted(entry.name for entry in folder.iterdir()) == ["allowed", "room.key_secret"]


@pytest.mark.parametrize("label", ["", ".", "..", "a/b", "../a", "-a", "a b", "x" * 41, "a\n", "ä"])
def test_a_label_that_is_none_is_refused(folder: Path, label: str) -> None:
    for act in (new_pair, load_pair, revoke, lambda text: allow(text, "0" * 40)):
        with pytest.raises(KeyFileError, match="a key's label is 1 to 40 letters"):
            act(label)
    assert not list(folder.parent.glob("**/*.key*"))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o777])
def test_a_private_key_that_others_can_reach_is_refused(folder: Path, mode: int) -> None:
    new_pair()
    (folder / "main.key_secret").chmod(mode)
    with pytest.raises(KeyFileError, match=rf"\(mode 0600\), got .* with mode {mode:04o}; run: chmod 600 /"):
        load_pair("main")


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777])
def test_a_folder_of_keys_that_others_can_reach_is_refused(folder: Path, mode: int) -> None:
    path = new_pair()
    folder.chmod(mode)
    for act in (
        lambda: load_pair("main"),
        lambda: new_pair("b"),
        lambda: allow("c", str(path)),
        allowed_clients,
    ):
        with pytest.raises(
            KeyFileError, match=rf"\(mode 0700\), got .* with mode {mode:04o}; run: chmod 700 /"
        ):
            act()
    folder.chmod(0o700)
    (folder / "allowed").chmod(mode)
    with pytest.raises(KeyFileError, match=r"run: chmod 700 /.*/allowed"):
        allowed_clients()


def test_a_link_in_the_place_of_a_private_key_is_refused(folder: Path) -> None:
    new_pair()
    (folder / "main.key_secret").rename(folder / "elsewhere")
    (folder / "main.key_secret").symlink_to(folder / "elsewhere")
    with pytest.raises(KeyFileError, match="needed a readable key file"):
        load_pair("main")


def test_a_pipe_in_the_place_of_a_key_keeps_nobody_waiting(folder: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.key")
    with pytest.raises(KeyFileError, match="no regular file"):
        read_public(str(tmp_path / "pipe.key"))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "metadata\ncurve\n",
        'public-key = "' + "x" * 39 + '"',
        "\0" * 5000,
        'secret-key = "' + "x" * 40 + '"',
    ],
    ids=["empty", "no key", "short key", "zeros", "only a secret"],
)
def test_a_file_that_is_no_pair_is_refused(folder: Path, content: str) -> None:
    new_pair()
    (folder / "main.key_secret").write_text(content)
    with pytest.raises(KeyFileError, match="needed a key pair as `contrastream keys new` makes it"):
        load_pair("main")
    with pytest.raises(KeyFileError, match="needed a"):
        read_public(str(folder / "main.key_secret"))


def test_a_private_key_is_not_taken_for_a_public_one(folder: Path) -> None:
    new_pair()
    with pytest.raises(KeyFileError, match="must stay where it was made"):
        allow("viewer", str(folder / "main.key_secret"))
    assert allowed_clients() == {}


def test_a_client_is_allowed_once_under_one_label_and_revoked_by_it(folder: Path) -> None:
    public = read_public(str(new_pair("viewer")))
    allow("lab", public.decode())
    allow("lab", str(folder / "viewer.key"))  # the same again
    assert allowed_clients() == {"lab": public}
    with pytest.raises(KeyFileError, match="got the key of lab"):
        allow("other", public.decode())
    with pytest.raises(KeyFileError, match="got lab of another client; run: contrastream keys revoke lab"):
        allow("lab", zmq.curve_keypair()[0].decode())
    with pytest.raises(KeyFileError, match="got viewer; allowed now: lab"):
        revoke("viewer")
    revoke("lab")
    assert allowed_clients() == {}


def test_the_command_never_prints_a_private_key(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keys", "new"]) == 0
    assert main(["keys", "new", "viewer"]) == 0
    assert main(["keys", "allow", "lab", str(folder / "viewer.key")]) == 0
    assert main(["keys", "list"]) == 0
    assert main(["keys", "allow", "x", str(folder / "main.key_secret")]) == 2
    assert main(["keys", "revoke", "lab"]) == 0
    said = "".join(capsys.readouterr())
    for label in ("main", "viewer"):
        pair = load_pair(label)
        assert pair.public.decode() in said
        assert pair.secret.decode() not in said + repr(pair)


@pytest.mark.parametrize("endpoint", ["tcp://0.0.0.0:5570", "tcp://192.0.2.7:5570", "tcp://[::]:5570"])
def test_a_run_beyond_this_host_without_keys_is_refused(
    endpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "phantom", "--engine", "off", "--frames", "1", "--endpoint", endpoint]) == 2
    assert "needed the CURVE key pair main, got none in" in (said := capsys.readouterr().err)
    assert "run: contrastream keys new" in said
