"""What the run says about itself."""

from __future__ import annotations

import time
from pathlib import Path

from clip4str.core.errors import Clip4StrError
from clip4str.training.run_log import read_rows

from . import checkout, processes
from .control import seen, since
from .keeper import RECIPE
from .places import Places
from .progress import VALIDATION, best, losses, millions, span, time_left
from .recipe import read_recipe
from .states import LAST, read_start

_QUIET = 15 * 60  # seconds without a row in the log after which that is said


def status(places: Places, draw: bool = True) -> int:
    """Print it. 0 if the run is running, 1 if it is paused, stopped or was never started."""
    keeper = processes.keeper_of(places)
    commit = checkout.current(places) if places.home.is_dir() else None
    alive = keeper is not None and not processes.stopped(keeper)
    print(_state(places, keeper, alive))
    if commit is None:
        return 1
    print(f"commit    {commit}")
    _print_progress(places, alive)
    if draw:
        print(f"chart     {_chart(places)}")
    print(f"log       {places.log}, raw output {places.output}")
    print(f"options   {places.run / 'options.json'}, from {places.run / Path(RECIPE).name}")
    return 0 if alive else 1


def _state(places: Places, keeper: processes.Keeper | None, alive: bool) -> str:
    if keeper is not None:
        many = len(processes.members(keeper.pid))
        paused = "" if alive else "; make network-resume goes on"
        return f"{'running' if alive else 'paused'}: {since(keeper)}, {many} processes{paused}"
    if processes.lock_held(places.lock):
        return "being started or carried by another command"
    if places.failed.exists():
        return f"stopped: {places.failed.read_text(encoding='utf-8').strip()}"
    return "stopped: make network-run goes on" if places.lock.exists() else "never started: make network-run"


def _print_progress(places: Places, alive: bool) -> None:
    rows, log = read_rows(places.run / "log.csv"), places.run / "log.csv"
    source = read_start(places.run).source
    print(f"words     {seen(places)}" + (f", begun from {source}" if source else ""))
    if rows:
        last, age = rows[-1], time.time() - log.stat().st_mtime
        quiet = f"; nothing new for {span(age)}" if alive and age > _QUIET else ""
        print(
            f"now       step {last['step']:,.0f}, {last.get('words_per_second', 0):.0f} words/s, {losses(last)}{quiet}"
        )
        for name, (value, most, words) in best(rows).items():
            label = name.removeprefix(VALIDATION)
            print(f"held out  {label}: {100 * value:.1f} %, best {100 * most:.1f} % at {millions(words)} words")
    state = places.run / LAST
    if state.exists():
        print(f"state     {span(time.time() - state.stat().st_mtime)} old, {state}")
    try:
        left = time_left(rows, read_recipe(places.checkout / RECIPE, places))
    except Clip4StrError as error:
        left = str(error)
    print(f"end       {left or 'none: it goes on until it is stopped'}")


def _chart(places: Places) -> str:
    """The picture's path, drawn anew beside the one that training draws, or why there is none."""
    if not read_rows(places.run / "log.csv"):
        return "none yet: nothing is logged"
    try:
        from clip4str.training.run_log import chart

        target = places.run / "chart.png"
        chart(places.run / "log.csv", target)
        return str(target)
    except Exception as error:  # a status that fails for a picture would be none
        return f"not drawn ({error})"
