"""Files with secrets: refused, in a sentence that says how to make one, unless they are the user's alone."""

import time
from pathlib import Path

import pytest

from stream.display.entrance import KEPT_S, Entrance
from stream.display.secret_files import Secrets, read_secrets
from stream.errors import EndpointError

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        pytest.param(
            None, 0, "got .*: no such file or directory; make one: .*openssl rand -hex 32", id="missing"
        ),
        pytest.param(SECRET, 0o640, r"yours alone \(mode 0600\), got .* with mode 0640", id="open to others"),
        pytest.param("short", 0o600, "one line of 32 to 256 printable characters", id="short"),
        pytest.param(
            f"{SECRET}\n{SECRET}", 0o600, "one line of 32 to 256 printable characters", id="two lines"
        ),
        pytest.param("x" * 300, 0o600, "one line of 32 to 256 printable characters", id="long"),
    ],
)
def test_a_file_that_keeps_no_secret_is_refused(
    text: str | None, mode: int, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "secret"
    if text is not None:
        path.write_text(text)
        path.chmod(mode)
    with pytest.raises(
        EndpointError, match=f"--metrics-token needs a file .*{said}|--metrics-token needs {said}"
    ):
        read_secrets(None, path)


def test_a_folder_is_no_secret(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(EndpointError, match="--session-key needs"):
        read_secrets(tmp_path, None)


def test_a_signed_cookie_ends_after_thirty_days(monkeypatch: pytest.MonkeyPatch) -> None:
    entrance = Entrance(1, secure=False, kept=Secrets(session_key=SECRET.encode()))
    scope = {"method": "GET", "path": "/", "query_string": f"token={entrance.token}".encode(), "headers": []}
    answer = entrance.admit(scope)
    assert answer is not None
    cookie = answer.headers["set-cookie"].partition(";")[0].encode()
    now = time.time()
    for later_s, known in (
        (0, True), (KEPT_S - 60, True), (KEPT_S + 60, False), (-3600, True), (-KEPT_S - 60, False)
    ):  # fmt: skip
        monkeypatch.setattr(time, "time", lambda now=now + later_s: now)
        assert entrance.knows({"headers": [(b"cookie", cookie)]}) is known
