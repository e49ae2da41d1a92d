"""Parquet files with a column of encoded pictures: binary, or a struct with `bytes`, as Hugging Face has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from clip4str.core.errors import Clip4StrError, DataError, first_line

from .chunks import TO_THE_END
from .parquet_pages import Pages
from .stores import MOST_BYTES, too_large

_ROWS = 64  # read at a time, or fewer:
_PIECE = (
    1 << 26
)  # bytes that they may have. A row has what its group has at most, however often a dictionary repeats it
_PLAIN = 1 << 26  # bytes, and
_FEW = 1 << 16  # rows, of a group that may be packed as densely as it likes; of larger ones
_DENSEST = 100  # as many bytes are in one at most: pictures are packed already
_REPEATED = 64  # likewise rows, where a picture comes again and again


def parts(file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """(first row group, how many) of chunks of at least `size` rows, where there are so many. Raises DataError."""
    metadata = _opened(file).metadata
    first, rows = 0, 0
    for group, count in enumerate(_counts(metadata)):
        rows += count
        if rows >= size:
            yield first, group + 1 - first
            first, rows = group + 1, 0
    if rows:
        yield first, metadata.num_row_groups - first


def pictures(file: BinaryIO, first: int, count: int, column: str | None) -> Iterator[tuple[int, bytes | str]]:
    """(row number in the file, picture) of row groups; in the place of a picture that cannot be had: why, one for each
    row. Raises DataError, also for a group that is too large for the bytes it has in the file."""
    pages = Pages(file)
    opened = _opened(pages)
    counts = _counts(opened.metadata)
    groups = range(first, len(counts) if count == TO_THE_END else first + count)
    if groups.stop > len(counts):
        raise DataError("has fewer row groups than when the job began")
    try:
        path = _path(opened.schema_arrow, column)
    except UnicodeError as error:
        raise DataError(f"no readable Parquet file: {first_line(error)}") from None
    row = sum(counts[:first])
    length = file.seek(0, 2)
    for group in groups:
        end = row + counts[group]
        columns = _columns(opened.metadata.row_group(group), path)
        most = _plausible(columns, counts[group], group, length)
        pages.watch(columns, counts[group])
        try:
            for content in _values(opened, group, path, max(1, min(_ROWS, _PIECE // max(1, most)))):
                if row == end:
                    raise DataError(f"row group {group} has more rows than the file says")
                yield row, content
                row += 1
            reason = "the file is damaged (the row is missing)"
        except Clip4StrError:
            raise
        except Exception as error:  # Arrow's, of many kinds
            reason = f"the file is damaged ({first_line(error)})"
        yield from ((number, reason) for number in range(row, end))
        row = end


def _counts(metadata: Any) -> list[int]:
    """Rows of each group. Raises DataError."""
    counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    if min(counts, default=0) < 0 or sum(counts) != metadata.num_rows:
        raise DataError(f"says that it has {metadata.num_rows:,} rows, and its row groups {sum(counts):,}")
    return counts


def _columns(group: Any, path: str) -> list[Any]:
    columns = (group.column(each) for each in range(group.num_columns))
    return [each for each in columns if each.path_in_schema == path]


def _plausible(columns: list[Any], rows: int, number: int, length: int) -> int:
    """Bytes of the pictures' column. Raises DataError where a file of so many bytes cannot have them, or has them to do
    harm."""
    packed = sum(each.total_compressed_size for each in columns)
    whole = sum(each.total_uncompressed_size for each in columns)
    dense = whole > max(_PLAIN, _DENSEST * packed) or rows > max(_FEW, _REPEATED * packed)
    if not 0 <= packed <= length or whole < 0 or dense:
        raise DataError(f"row group {number}: {rows:,} rows of {whole:,} bytes in {packed:,} bytes of the file")
    return int(whole)


def _values(opened: Any, group: int, path: str, rows: int) -> Iterator[bytes | str]:
    from pyarrow import types

    for batch in opened.iter_batches(rows, row_groups=[group], columns=[path], use_threads=False):
        values = batch.column(0)
        while types.is_struct(values.type):
            values = values.field(0)
        yield from map(_content, values)


def _content(value: Any) -> bytes | str:
    if not value.is_valid:
        return "no picture: null"
    content: bytes = value.as_py()
    return content if len(content) <= MOST_BYTES else too_large()


def _opened(file: Any) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
    except (pa.ArrowException, OSError, UnicodeError) as error:
        raise DataError(f"no readable Parquet file: {first_line(error)}") from None


def _path(schema: Any, column: str | None) -> str:
    """Of the column with pictures. Raises DataError."""
    found = {field.name: path for field in schema if (path := _bytes_of(field)) is not None}
    if column is not None:
        if column not in found:
            there = "is no column of bytes" if column in schema.names else "there is no such column"
            raise DataError(f"--column {column}: {there}; of bytes are: {', '.join(found) or 'none'}")
        return found[column]
    if len(found) != 1:
        raise DataError(f"{len(found)} columns of bytes ({', '.join(found) or 'none'}); name the pictures' by --column")
    return next(iter(found.values()))


def _bytes_of(field: Any) -> str | None:
    from pyarrow import types

    binary = (types.is_binary, types.is_large_binary, types.is_binary_view)
    if any(kind(field.type) for kind in binary):
        return str(field.name)
    if types.is_struct(field.type):
        inner = field.type.get_field_index("bytes")
        if inner >= 0 and any(kind(field.type.field(inner).type) for kind in binary):
            return f"{field.name}.bytes"
    return None
