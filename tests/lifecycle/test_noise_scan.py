"""The scan for noise finds each form in which plaintext leaks, and nothing in noise."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import numpy as np
import pytest

from strongroom.errors import InvalidInputError, InvalidVectorError, StorageError, StoreNotFoundError
from strongroom.lifecycle import noise_scan
from strongroom.lifecycle.noise_scan import scan_directory

NEEDLE = "the renewal of 4,200 seats is at risk"
OTHERS = [f"some other phrase, number {i}" for i in range(300)]
VECTOR = np.random.default_rng(7).normal(size=384).astype(np.float32)


def plant(path: Path, data: bytes, *, before: int = 1000, after: int = 1000) -> None:
    path.write_bytes(os.urandom(before) + data + os.urandom(after))


TEXT_FORMS = {
    "utf-8": NEEDLE.encode(),
    "utf-16-le": NEEDLE.encode("utf-16-le"),
    "utf-16-be": NEEDLE.encode("utf-16-be"),
    "hex": NEEDLE.encode().hex().encode(),
}


@pytest.mark.parametrize("form", TEXT_FORMS)
def test_each_text_form_is_found_where_it_lies(tmp_path: Path, form: str) -> None:
    plant(tmp_path / "ledger.db", TEXT_FORMS[form], before=1001)
    report = scan_directory(tmp_path, [*OTHERS, NEEDLE])
    assert [(f.path, f.offset, f.form, f.index) for f in report.findings] == [("ledger.db", 1001, form, 300)]
    assert not report.clean


def test_upper_case_hex_is_found(tmp_path: Path) -> None:
    plant(tmp_path / "x", NEEDLE.encode().hex().upper().encode())
    assert [f.form for f in scan_directory(tmp_path, [NEEDLE]).findings] == ["hex"]


@pytest.mark.parametrize("before", range(3))
@pytest.mark.parametrize("after", range(3))
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_is_found_at_every_alignment_between_other_text(tmp_path, before, after, encode) -> None:  # type: ignore[no-untyped-def]
    needle = "churn? yes~ >>> 100% sure, ÿÿÿ"  # its encoding holds + and /
    text = b"\xfb" * before + needle.encode() + b"\xfe" * after
    (tmp_path / "log").write_bytes(b"{" + encode(text) + b"}")
    assert {f.form for f in scan_directory(tmp_path, [needle]).findings} == {"base64"}


@pytest.mark.parametrize(("form", "dtype"), [("float32", "<f4"), ("float16", "<f2")])
def test_a_vector_is_found_by_any_part_of_it(tmp_path: Path, form: str, dtype: str) -> None:
    data = VECTOR.astype(dtype).tobytes()
    plant(tmp_path / "whole", data)
    plant(tmp_path / "part", data[100:140])
    (tmp_path / "zeros").write_bytes(bytes(4096))
    report = scan_directory(tmp_path, [], [np.zeros(384, np.float32), VECTOR])
    assert {(f.path, f.form, f.index) for f in report.findings} == {("whole", form, 1), ("part", form, 1)}
    assert sum(f.path == "whole" for f in report.findings) == len(data) // 16


def test_what_straddles_two_chunks_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise_scan, "CHUNK_BYTES", 1024)
    for before in range(1000, 1030):
        plant(tmp_path / f"{before}", NEEDLE.encode(), before=before)
    report = scan_directory(tmp_path, [NEEDLE])
    assert sorted((f.path, f.offset) for f in report.findings) == [(f"{b}", b) for b in range(1000, 1030)]


def test_subdirectories_hidden_and_tiny_files_are_read_and_links_are_not(tmp_path: Path) -> None:
    inside = tmp_path / "data"
    (inside / "a" / ".b").mkdir(parents=True)
    plant(inside / "a" / ".b" / ".hidden", NEEDLE.encode())
    (inside / "tiny").write_bytes(b"abc")
    plant(tmp_path / "outside", NEEDLE.encode())
    (inside / "link").symlink_to(tmp_path / "outside")
    report = scan_directory(inside, [NEEDLE])
    assert [f.path for f in report.findings] == ["a/.b/.hidden"]
    assert [f.path for f in report.files] == ["a/.b/.hidden", "tiny"]


def test_noise_is_clean_and_its_entropy_is_near_eight_bits(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(os.urandom(1 << 20))
    (tmp_path / "text").write_bytes(b"ab" * 5000)
    (tmp_path / "empty").write_bytes(b"")
    report = scan_directory(tmp_path, [*OTHERS, NEEDLE], [VECTOR])
    assert report.clean
    assert report.bytes_total == (1 << 20) + 10_000
    entropy = {f.path: f.entropy_bits for f in report.files}
    assert entropy["noise"] > 7.99
    assert entropy["text"] == pytest.approx(1.0)
    assert entropy["empty"] == 0.0


def test_findings_never_name_the_text(tmp_path: Path) -> None:
    plant(tmp_path / "x", NEEDLE.encode())
    assert NEEDLE not in repr(scan_directory(tmp_path, [NEEDLE]))


def test_findings_per_file_are_limited(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(NEEDLE.encode() * 1500)
    assert len(scan_directory(tmp_path, [NEEDLE]).findings) == noise_scan.FINDINGS_PER_FILE_MAX


@pytest.mark.parametrize("needles", [["too short"], ["x" * 5000], []])
def test_a_scan_that_could_find_nothing_is_refused(tmp_path: Path, needles: list[str]) -> None:
    with pytest.raises(InvalidInputError):
        scan_directory(tmp_path, needles)


@pytest.mark.parametrize(
    "vector", [np.zeros((2, 8), np.float32), np.zeros(4, np.float32), np.zeros(8, np.int32)]
)
def test_a_vector_of_another_shape_is_refused(tmp_path: Path, vector: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(InvalidVectorError):
        scan_directory(tmp_path, [], [vector])


def test_a_missing_directory_is_an_error_and_not_a_clean_report(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError):
        scan_directory(tmp_path / "absent", [NEEDLE])


def test_an_unreadable_file_is_an_error_and_not_a_clean_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").write_bytes(b"x")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr(noise_scan, "_scan_file", refuse)
    with pytest.raises(StorageError, match="x cannot be read"):
        scan_directory(tmp_path, [NEEDLE])
