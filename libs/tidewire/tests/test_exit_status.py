"""What a command of the platform ends with, by the kind of its error."""

from collections.abc import Coroutine

import pytest
import typer

from tidewire_kit.errors import FailedPrecondition, InvalidArgument, TidewireError, Unavailable
from tidewire_platform.commands import run_command


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidArgument("TIDEWIRE_BACKEND", "is none of these"), 2),
        (Unavailable("cassandra", "no node answers"), 3),
        (FailedPrecondition("no name is known", reason="STORE_UNRESOLVABLE"), 3),
        (FailedPrecondition("another platform runs here", reason="PLATFORM_RUNNING"), 4),
        (FailedPrecondition("port 7001 is in use", reason="PORT_IN_USE"), 1),
    ],
)
def test_an_error_is_a_line_and_a_status(
    error: TidewireError, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async def failing() -> int:
        raise error

    work: Coroutine[object, object, int] = failing()
    with pytest.raises(typer.Exit) as ended:
        run_command(work)
    assert ended.value.exit_code == status
    assert capsys.readouterr() == ("", f"Error: {error}\n")
