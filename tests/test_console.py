"""A terminal shows a bar, a log file a line every 15 seconds, and text is printed unchanged."""

import io

import pytest
from rich.console import Console

from dkl import console
from dkl.console import bar, say


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    ticking = Clock()
    monkeypatch.setattr(console, "time", ticking)
    return ticking


def run(clock: Clock, steps: int, seconds: float, done: int = 0) -> list[str]:
    """Return the lines in a log file after ``steps`` steps of ``seconds`` each."""
    file = io.StringIO()
    with bar("train", 100, done, Console(file=file, width=120)) as progress:
        for step in range(steps):
            clock.now += seconds
            progress.advance(1, f"step {step}")
    return file.getvalue().splitlines()


def test_a_log_file_gets_a_line_every_fifteen_seconds(clock: Clock) -> None:
    assert run(clock, 10, 1.0) == []
    assert len(run(clock, 31, 1.0)) == 2
    assert len(run(clock, 4, 20.0)) == 4


def test_the_line_shows_name_note_count_and_the_time_left(clock: Clock) -> None:
    (line,) = run(clock, 1, 20.0)
    assert line == "train  step 0  1/100  eta 0:33:00"  # 99 steps of 20 s


def test_steps_done_before_do_not_count_into_the_time_left(clock: Clock) -> None:
    (line,) = run(clock, 1, 20.0, done=90)
    assert line == "train  step 0  91/100  eta 0:03:00"  # 9 steps of 20 s


def test_a_terminal_gets_a_bar_which_ends_also_when_the_body_raises() -> None:
    file, bars = io.StringIO(), []

    def fail() -> None:
        with bar("attack", 4, 1, Console(file=file, force_terminal=True, width=100)) as progress:
            bars.append(progress.live)
            progress.advance(2, "half done")
            assert progress.live is not None
            assert progress.live.live.is_started
            raise KeyError("in the body")

    with pytest.raises(KeyError, match="in the body"):
        fail()
    assert not bars[0].live.is_started
    assert "3/4" in file.getvalue()


def test_text_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    text = "results/runs/[bold]name[/bold]: 8/255 :smile: " + "a" * 300
    say(text)
    assert capsys.readouterr() == ("", text + "\n")
