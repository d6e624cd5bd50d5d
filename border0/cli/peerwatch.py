"""`debug peers --watch`: a picture that is drawn again on a terminal, a line a change elsewhere.

The lines are a transcript: first the way to each peer, then each switch with its time, from
where, to where and why.
"""

import re
import shutil
import time
from collections.abc import Callable, Mapping
from typing import Any

from border0.audit.reading import printable
from border0.cli import peerview
from border0.cli.peerview import Peer, Way

HOME, REST_OF_LINE, REST, CLEAR = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[2J"
NO_WAY = "no way"


def picture(told: Mapping[str, Any], title: str, utc: bool, first: bool) -> str:
    """What redraws a terminal; what does not fit on it is counted."""
    columns, rows = shutil.get_terminal_size()
    now = float(told.get("now") or 0.0)
    lines = [f"{title}  {peerview.clock(now, utc)[:19]}  (Ctrl-C ends it)", ""]
    lines += peerview.table(told, utc)
    room = max(3, rows - 1)
    if len(lines) > room:
        left = len(lines) - room + 1
        lines = [*lines[: room - 1], f"... {left} more lines: make the window higher"]
    shown = [line if len(line) <= columns else line[: columns - 1] + "\u2026" for line in lines]
    body = "".join(f"{line}{REST_OF_LINE}\n" for line in shown)
    return f"{CLEAR if first else ''}{HOME}{body}{REST}"


class Transcript:
    """What is new in each answer, as lines."""

    def __init__(self, utc: bool) -> None:
        self.utc = utc
        self._process: Any = None
        self._peers: dict[str, tuple[str, Way | None, int]] = {}  # name, way, switches

    def lines(self, told: Mapping[str, Any]) -> list[str]:
        """The state when a process is first heard of, then what changed."""
        now = float(told.get("now") or 0.0)
        fresh = told.get("pid") != self._process
        if fresh:
            self._process, self._peers = told.get("pid"), {}
        before, self._peers = self._peers, {}
        found = []
        for peer in peerview.peers(told):
            key = peerview.key(peer)
            way, switches = peerview.active(peer), int(peer.get("switches") or 0)
            self._peers[key] = (peerview.name(peer), way, switches)
            known = before.pop(key, None)
            if known is None:
                found.append(self._line(now, peerview.name(peer), _state(way)))
            else:
                found += self._changes(peer, known[1], switches - known[2], now)
        for name, _, _ in before.values():
            found.append(self._line(now, name, "no longer a peer"))
        if fresh and not self._peers:
            found.append(self._line(now, "no peers", ""))
        return found

    def _changes(self, peer: Peer, was: Way | None, switches: int, now: float) -> list[str]:
        way = peerview.active(peer)
        old, new = _name(was), _name(way)
        if old == new and switches <= 0:
            return []
        at, reason = now, ""
        if switches > 0:
            at = float(peer.get("last_switch") or now)
            reason = _shorter(str(peer.get("last_reason") or ""), old, new)
        times = f" (after {switches} switches)" if switches > 1 else ""
        text = f"{old} -> {new}{times}{': ' if reason else ''}{reason}"
        return [self._line(at, peerview.name(peer), text)]

    def _line(self, at: float, name: str, text: str) -> str:
        return printable(f"{peerview.clock(at, self.utc)}  {name}  {text}".rstrip())


def _name(way: Way | None) -> str:
    return NO_WAY if way is None else peerview.way_name(way)


def _state(way: Way | None) -> str:
    if way is None:
        return NO_WAY
    facts = f"RTT {peerview.rtt(way)}, loss {peerview.loss(way)}, MTU {peerview.mtu(way)}"
    return f"{_name(way)} ({facts}, score {peerview.score(way)})"


def _shorter(reason: str, old: str, new: str) -> str:
    """The reason without the names of the two ways, which stand before it."""
    reason = reason.removeprefix(old).removeprefix(":").strip() if old != NO_WAY else reason
    found = re.fullmatch(rf"(.*)(; now|,) {re.escape(new)} \(score ([0-9.]+)\)", reason)
    if found is None:
        return reason
    return f"{found[1]}{'; score now' if found[2] == '; now' else ', score'} {found[3]}"


def run(
    ask: Callable[[], Mapping[str, Any]],
    show: Callable[[Mapping[str, Any]], None],
    interval: float,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Ask and show, each `interval` seconds, until KeyboardInterrupt."""
    while True:
        began = time.monotonic()
        show(ask())
        sleep(max(0.05, interval - (time.monotonic() - began)))
