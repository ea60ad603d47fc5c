"""Reports on a terminal that is not UTF-8."""

from __future__ import annotations

import io
import sys

import pytest

from jaxgan import __main__, terminal


def test_a_report_is_printed_whatever_the_terminals_encoding(monkeypatch):
    bytes_ = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_, "ascii"))
    monkeypatch.setattr(sys, "argv", ["jaxgan", "seeing"])
    monkeypatch.setitem(__main__.COMMANDS, "seeing", lambda argv: print("missing: 帽子: −92 % (−95 … ∞ %) \udc80 2 → 3") or 0)
    with pytest.raises(SystemExit) as left:
        __main__.console()
    sys.stdout.flush()
    assert left.value.code == 0
    assert bytes_.getvalue().decode() == "missing: ??: -92 % (-95 ... inf %) ? 2 -> 3\n"


def test_what_a_terminal_can_show_stays_as_it_is():
    bytes_ = io.BytesIO()
    stream = io.TextIOWrapper(bytes_, "utf-8")
    terminal.forgive(stream)
    print("帽子: −92 %", file=stream, flush=True)
    assert bytes_.getvalue().decode() == "帽子: −92 %\n"
    terminal.forgive(io.StringIO())
