"""Column statistics of CSV."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

COLUMN_LIMIT = 30
DELIMITERS = ",;\t|"
_SAMPLE = 100

_NUMBER = re.compile(r"[+-]?(?:0|[1-9][0-9]*)?(?:\.[0-9]+)?(?:(?<=[0-9])[eE][+-]?[0-9]{1,3})?")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        count: cells that are not empty.
        distinct: different values among them.
        minimum, maximum, mean: of a column of numbers only; else None.
    """

    name: str
    count: int
    distinct: int
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None


@dataclass(frozen=True)
class TableStatistics:
    """What was computed from one CSV text.

    Attributes:
        rows: data rows, without the header.
        has_header: whether the first row was taken for names.
        ragged: rows with more or fewer cells than the first.
    """

    columns: tuple[Column, ...]
    rows: int
    has_header: bool
    ragged: int
    delimiter: str


def looks_like_csv(name: str, text: str) -> bool:
    """Whether the name says so, or the content clearly is: equal rows with a column of numbers."""
    if name.lower().endswith((".csv", ".tsv")):
        return True
    if re.search(r"\.\w{1,9}$", name):
        return False
    rows = _rows_of(text[:20_000], _delimiter(text, ",;\t"))
    if len(text) > 20_000:
        rows = rows[:-1]
    if len(rows) < 3 or len(rows[0]) < 2 or any(len(row) != len(rows[0]) for row in rows):
        return False
    columns = list(zip(*rows[1:], strict=True))
    return any(all(_number(cell, decimal_comma=True) is not None for cell in column) for column in columns)


def table_statistics(text: str, *, name: str = "") -> TableStatistics:
    """Compute statistics for every column.

    Raises:
        csv.Error: the text cannot be read as CSV.
    """
    text = text.removeprefix("\ufeff")
    delimiter = "\t" if name.lower().endswith(".tsv") else _delimiter(text, DELIMITERS)
    rows = _rows_of(text, delimiter)
    if not rows:
        return TableStatistics((), 0, has_header=False, ragged=0, delimiter=delimiter)
    has_header = _is_header(rows)
    body = rows[1:] if has_header else rows
    width = max(len(row) for row in rows)
    names = rows[0] if has_header else []
    columns = []
    for index in range(width):
        cells = [row[index].strip() for row in body if index < len(row)]
        name = names[index].strip() if index < len(names) else ""
        columns.append(_column(name or f"column {index + 1}", cells, decimal_comma=delimiter == ";"))
    ragged = sum(len(row) != len(rows[0]) for row in rows)
    return TableStatistics(tuple(columns), len(body), has_header, ragged, delimiter)


def _rows_of(text: str, delimiter: str) -> list[list[str]]:
    """All rows that are not blank."""
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), delimiter=delimiter)
    return [row for row in reader if any(cell.strip() for cell in row)]


def _delimiter(text: str, candidates: str) -> str:
    """The delimiter that cuts the first rows into the most equal pieces; a comma if none cuts at all.

    csv.Sniffer guesses letters and spaces for short or quoted texts, so the rows themselves decide.
    """
    sample = "\n".join(text.removeprefix("\ufeff").splitlines()[:_SAMPLE])

    def score(delimiter: str) -> tuple[float, int]:
        try:
            widths = [len(row) for row in _rows_of(sample, delimiter)]
        except csv.Error:
            return 0, 0
        usual = max(set(widths), key=lambda width: (widths.count(width), width), default=1)
        return (widths.count(usual) / len(widths), usual) if usual > 1 else (0, 0)

    best = max(candidates, key=score)
    return best if score(best) > (0, 0) else ","


def _is_header(rows: Sequence[Sequence[str]]) -> bool:
    first = [cell.strip() for cell in rows[0]]
    named = [cell for cell in first if cell]
    return len(set(named)) == len(named) and all(_number(cell, decimal_comma=True) is None for cell in named)


def _column(name: str, cells: Sequence[str], *, decimal_comma: bool) -> Column:
    filled = [cell for cell in cells if cell]
    distinct = len(set(filled))
    numbers: list[float] = []
    for cell in filled:
        number = _number(cell, decimal_comma=decimal_comma)
        if number is None:
            return Column(name, len(filled), distinct)
        numbers.append(number)
    if not numbers:
        return Column(name, 0, 0)
    return Column(name, len(filled), distinct, min(numbers), max(numbers), _mean(numbers))


def _mean(numbers: Sequence[float]) -> float:
    try:
        return fmean(numbers)
    except OverflowError:
        return math.fsum(number / len(numbers) for number in numbers)


def _number(cell: str, *, decimal_comma: bool) -> float | None:
    """A finite number, or None. Codes with leading zeros are no numbers."""
    cell = cell.strip()
    if decimal_comma and _DECIMAL_COMMA.fullmatch(cell):
        cell = cell.replace(",", ".")
    if not _NUMBER.fullmatch(cell) or not any(character.isdigit() for character in cell):
        return None
    number = float(cell)
    return number if math.isfinite(number) else None


def written(table: TableStatistics) -> str:
    """The statistics as a Markdown table."""
    if not table.columns:
        return "The table is empty."
    parts = [
        f"CSV: {table.rows:,} data row{'' if table.rows == 1 else 's'}, "
        f"{len(table.columns):,} column{'' if len(table.columns) == 1 else 's'}"
        + ("." if table.has_header else "; the first row was not taken for a header.")
    ]
    lines = ["| column | count | distinct | min | max | mean |", "|---|---|---|---|---|---|"]
    for column in table.columns[:COLUMN_LIMIT]:
        numbers = (_shown(value) for value in (column.minimum, column.maximum, column.mean))
        lines.append(f"| {_cell(column.name)} | {column.count} | {column.distinct} | {' | '.join(numbers)} |")
    if len(table.columns) > COLUMN_LIMIT:
        lines.append(f"\n... and {len(table.columns) - COLUMN_LIMIT} more columns")
    parts.append("\n".join(lines))
    if table.ragged:
        parts.append(f"{table.ragged:,} of the rows have more or fewer cells than the first.")
    return "\n\n".join(parts)


def _cell(name: str) -> str:
    name = " ".join(name.split()).replace("|", "\\|")
    return name if len(name) <= 40 else name[:37] + "..."


def _shown(value: float | None) -> str:
    if value is None:
        return "-"
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else format(value, ".6g")
