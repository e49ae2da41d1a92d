"""Parquet files as inputs of a batch job: whole, damaged and hostile."""

from __future__ import annotations

import subprocess
import sys

import pytest
from batch_inputs import CROPS, ROOT, read

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq


def test_parquet_with_bytes_and_as_hugging_face_has_it(recognizer, words, tmp_path):
    content = [crop.read_bytes() for crop in CROPS]
    pq.write_table(pa.table({"jpg": [*content, None, b""], "label": ["x"] * 34}), tmp_path / "a.parquet",
                   row_group_size=4)  # fmt: skip
    pq.write_table(pa.table({"image": [{"path": "", "bytes": each} for each in content], "other": content}),
                   tmp_path / "b.parquet")  # fmt: skip
    found, count = read(recognizer, [tmp_path / "a.parquet"], size=10)
    assert count == 3 and [row["member"] for row in found] == [str(i) for i in range(34)]
    assert [row["text"] for row in found[:32]] == list(words.values())
    assert [row["error"] for row in found[32:]] == ["no picture: null", "the file is empty"]
    found, _ = read(recognizer, [tmp_path / "b.parquet"], column="image")
    assert [row["text"] for row in found] == list(words.values())
    found, _ = read(recognizer, [tmp_path / "b.parquet"])
    assert [row["error"] for row in found] == ["2 columns of bytes (image, other); name the pictures' by --column"]


def test_a_damaged_parquet_file_has_a_row_for_each_row(recognizer, tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"jpg": [crop.read_bytes() for crop in CROPS]}), path, compression=None, row_group_size=16,
                   use_dictionary=False)  # fmt: skip
    data = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data[start : start + 40] = b"\xff" * 40
    path.write_bytes(data)
    found, _ = read(recognizer, [path], size=16)
    assert [row["member"] for row in found] == [str(i) for i in range(32)]
    assert all(row["text"] for row in found[:16]) and all("damaged" in row["error"] for row in found[16:])
    path.write_bytes(data[:100])
    found, _ = read(recognizer, [path])
    assert len(found) == 1 and "no readable Parquet file" in found[0]["error"]


def integer(number: int) -> bytes:
    """As the footer has it: Thrift's compact form of a number from 0."""
    number, out = 2 * number, bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    return b"\x16" + bytes([*out, number])


def edited(path, old: bytes, new: bytes, times: int = -1) -> None:
    """Its footer."""
    data = path.read_bytes()
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    footer = data[start:-8].replace(old, new, times)
    assert footer != data[start:-8]
    path.write_bytes(data[:start] + footer + len(footer).to_bytes(4, "little") + b"PAR1")


@pytest.mark.parametrize("times, count", [(-1, 41), (1, None), (-1, 1 << 40)])
def test_rows_that_are_said_to_be_there_and_are_not(recognizer, tmp_path, times, count):
    """Have rows with an error, or the file has one; not one for each of a million million."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"jpg": [b"%02d" % number for number in range(40)]}), path)
    edited(path, integer(40), integer(count or 41), times)
    found, _ = read(recognizer, [path])
    assert all(row["error"] for row in found)
    if count == 41:
        assert [row["member"] for row in found] == [str(number) for number in range(41)]
        assert "the row is missing" in found[40]["error"]
    else:
        said = "says that it has" if count is None else "row group 0: 1,099,511,627,776 rows"
        assert len(found) == 1 and said in found[0]["error"]


def test_a_footer_that_is_no_utf8_is_a_row(recognizer, tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"jpg": [b"x"]}), path, store_schema=False)
    edited(path, b"jpg", b"\xff\xfe\xfd")
    found, _ = read(recognizer, [path])
    assert len(found) == 1 and found[0]["error"]


@pytest.mark.parametrize("size, rows, refused", [(12 << 20, 64, False), (80 << 20, 1, True), (2, 1 << 20, True)])
def test_a_small_file_takes_little_memory(tmp_path, size, rows, refused):
    """However large what it packs is: one value, many times over."""
    path = tmp_path / "a.parquet"
    value = pa.array([bytes(size)], pa.binary())
    column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), value)
    pq.write_table(pa.table({"jpg": column}), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 20_000
    count, grown = taken(path)
    assert count == ("refused" if refused else str(rows)) and grown < 400_000  # KB; 12 MB 64 times are 790,000


def taken(path):
    """Pictures, of a process of its own, and the KB by which it grew: a process's ru_maxrss is that of who started it
    where that was larger."""
    code = (
        "import sys; from clip4str.serving.batch import parquet_tables\n"
        "from clip4str.core.errors import DataError\n"
        "from pathlib import Path\n"
        "def peak(): return int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0])\n"
        "import pyarrow.parquet; before = peak()\n"
        "with open(sys.argv[1], 'rb') as file:\n"
        "    try: found = [type(each) for _, each in parquet_tables.pictures(file, 0, 1, None)]\n"
        "    except DataError: found = 'refused'\n"
        "count = found if found == 'refused' else f'{len(found)}-errors' if str in found else len(found)\n"
        "print(count, peak() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, cwd=ROOT, timeout=100
    )
    count, grown = done.stdout.split()
    return count, int(grown)


@pytest.mark.parametrize("fault", ["unpacked", "packed", "values", "header", "pages"])
def test_what_a_page_says_of_itself_takes_no_memory(tmp_path, fault):
    """Arrow makes room for what a page's header says, and unpacks as much: the page of 200 MB here is 20 KB, of a
    column that says 5 MB."""
    path, whole = tmp_path / "a.parquet", 5 << 20
    pq.write_table(pa.table({"jpg": [bytes(whole)]}), path, compression="zstd", use_dictionary=False,
                   write_statistics=False)  # fmt: skip
    column = pq.ParquetFile(path).metadata.row_group(0).column(0)
    bomb, small = (pa.compress(bytes(size), codec="zstd", asbytes=True) for size in (200 << 20, whole))
    first, unpacked, packed, content = {
        "unpacked": (0, 200 << 20, len(bomb), bomb), "packed": (0, whole, 1 << 30, small),
        "values": (2, whole, len(small), small), "pages": (0, whole, 0, b""), "header": (0, 0, 0, b""),
    }[fault]  # fmt: skip
    kind = b"\x2c\x15\x02\x15\x00\x15\x06\x15\x06\x00\x00"  # a page of one value
    if fault == "values":
        kind = b"\x4c\x15\x80\x80\x80\x80\x08\x15\x04\x00\x00"  # a dictionary of 2 ** 30
    said = b"".join(b"\x15" + integer(number)[1:] for number in (first, unpacked, packed)) + kind
    page = {"header": b"\x1c" * 200, "pages": said * 500}.get(fault, said + content)
    data = path.read_bytes()
    start, old = column.data_page_offset, column.total_compressed_size
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    path.write_bytes(data[:start] + page + data[footer:])
    edited(path, integer(old), integer(len(page)))
    count, grown = taken(path)
    assert count == "1-errors" and grown < 50_000  # KB
