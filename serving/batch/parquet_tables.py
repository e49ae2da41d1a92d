"""Parquet files with a column of encoded pictures: binary, or a struct with `bytes`, as Hugging Face has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

from clip4str.core.errors import DataError, first_line

from .chunks import TO_THE_END
from .stores import MOST_BYTES

_ROWS = 64  # read at a time


def parts(file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """(first row group, how many) of chunks of at least `size` rows, where there are so many. Raises DataError."""
    metadata = _opened(file).metadata
    first, rows = 0, 0
    for group in range(metadata.num_row_groups):
        rows += metadata.row_group(group).num_rows
        if rows >= size:
            yield first, group + 1 - first
            first, rows = group + 1, 0
    if rows:
        yield first, metadata.num_row_groups - first


def pictures(file: BinaryIO, first: int, count: int, column: str | None) -> Iterator[tuple[int, bytes | str]]:
    """(row number in the file, picture) of row groups; in the place of a picture that cannot be had: why, one for each
    row. Raises DataError."""
    import pyarrow as pa

    opened = _opened(file)
    metadata = opened.metadata
    groups = range(first, metadata.num_row_groups if count == TO_THE_END else first + count)
    if groups.stop > metadata.num_row_groups:
        raise DataError("has fewer row groups than when the job began")
    path = _path(opened.schema_arrow, column)
    row = sum(metadata.row_group(group).num_rows for group in range(first))
    end = row + sum(metadata.row_group(group).num_rows for group in groups)
    try:
        for batch in opened.iter_batches(_ROWS, row_groups=list(groups), columns=[path], use_threads=False):
            values = batch.column(0)
            while pa.types.is_struct(values.type):
                values = values.field(0)
            for value in values:
                yield row, _content(value)
                row += 1
    except (pa.ArrowException, OSError) as error:
        reason = f"the file is damaged ({first_line(error)})"
        yield from ((number, reason) for number in range(row, end))


def _content(value: Any) -> bytes | str:
    if not value.is_valid:
        return "no picture: null"
    content = value.as_py()
    return content if len(content) <= MOST_BYTES else f"more than {MOST_BYTES:,} bytes, which no crop of a word has"


def _opened(file: BinaryIO) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
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
