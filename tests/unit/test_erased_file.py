"""The file of erased keys: a line that was cut off neither stops anybody nor spoils the next one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from libs.common.errors import Transient
from services.analyzer.model.erasures import SuppressedRow
from services.analyzer.store.erased_file import ErasedFile

ROWS = [SuppressedRow(n, bytes([n]) * 16, f"e-{n}") for n in range(4)]


def test_torn_line_is_passed_over_and_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "erased.jsonl"
    ErasedFile(path).add(ROWS[:2])
    for cut in range(1, 40):
        whole = path.read_bytes()
        path.write_bytes(whole[:-cut])
        file = ErasedFile(path)
        assert file.read() == set(ROWS[:1])
        assert file.add(ROWS[:2]) == 1
        assert path.read_bytes() == whole


def test_write_that_fails_leaves_nothing_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ErasedFile(tmp_path / "erased.jsonl")
    file.add(ROWS[:1])
    before = (tmp_path / "erased.jsonl").read_bytes()
    write = os.write
    with monkeypatch.context() as full:
        full.setattr(os, "write", lambda handle, data: write(handle, data[: len(data) // 2]))
        with pytest.raises(Transient, match="cannot be written"):
            file.add(ROWS)
    assert (tmp_path / "erased.jsonl").read_bytes() == before
    assert file.add(ROWS) == 3
    assert ErasedFile(tmp_path / "erased.jsonl").read() == set(ROWS)
