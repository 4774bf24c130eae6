"""Column statistics, against the statistics module."""

from __future__ import annotations

import csv
import io
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlin_bridge.server.demo_agent.tables import looks_like_csv, table_statistics, written


def columns(text: str, name: str = "t.csv") -> list[tuple[Any, ...]]:
    return [
        (c.name, c.count, c.distinct, c.minimum, c.maximum, c.mean) for c in table_statistics(text, name=name).columns
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\ufeffa,b\n1,x\n2,x\n", [("a", 2, 2, 1, 2, 1.5), ("b", 2, 1, None, None, None)]),
        ("a;b\n1,5;x\n2,5;y\n", [("a", 2, 2, 1.5, 2.5, 2.0), ("b", 2, 2, None, None, None)]),
        ("a\tb\n1\tx\n", [("a", 1, 1, 1, 1, 1), ("b", 1, 1, None, None, None)]),
        ('a,b\n"two\nlines",1\n"say ""hi"", ok",2\n', [("a", 2, 2, None, None, None), ("b", 2, 2, 1, 2, 1.5)]),
        ("1,2\n3,4\n", [("column 1", 2, 2, 1, 3, 2), ("column 2", 2, 2, 2, 4, 3)]),
        ("a,a\n1,2\n", [("column 1", 2, 2, None, None, None), ("column 2", 2, 2, None, None, None)]),
        ("a,\n1,2\n3\n4,5,6\n", [("a", 3, 3, 1, 4, 8 / 3), ("column 2", 2, 2, 2, 5, 3.5), ("column 3", 1, 1, 6, 6, 6)]),
        ("n\n01\n02\n", [("n", 2, 2, None, None, None)]),
        ("n\n-1e2\n.5\n+3\n", [("n", 3, 3, -100, 3, -96.5 / 3)]),
        ("n,e\n1,\n,\n", [("n", 1, 1, 1, 1, 1), ("e", 0, 0, None, None, None)]),
        ("n\n1e999\n", [("n", 1, 1, None, None, None)]),
        ("n\n1.7e308\n1.7e308\n", [("n", 2, 1, 1.7e308, 1.7e308, 1.7e308)]),
        ("only,a,header\n", [(name, 0, 0, None, None, None) for name in ("only", "a", "header")]),
        ("", []),
        ("\n \n", []),
    ],
)
def test_examples(text: str, expected: list[tuple[Any, ...]]) -> None:
    assert columns(text) == [pytest.approx(column) for column in expected]


def test_a_tsv_is_cut_at_tabs_only() -> None:
    assert columns("a\tb,c,d\n1\t2,3,4\n", "t.tsv")[0] == ("a", 1, 1, 1, 1, 1)


numbers = st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=30)
cells = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=8).map(str.strip)


@given(values=numbers, texts=st.data(), delimiter=st.sampled_from(",;\t"))
def test_statistics_agree_with_the_statistics_module(values: list[float], texts: st.DataObject, delimiter: str) -> None:
    others = texts.draw(st.lists(cells, min_size=len(values), max_size=len(values)))
    file = io.StringIO()
    writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerow(["value", "text"])
    writer.writerows(zip(map(repr, values), (f"x{other}" for other in others), strict=True))
    table = table_statistics(file.getvalue())
    assert (table.rows, table.delimiter, table.has_header, table.ragged) == (len(values), delimiter, True, 0)
    value, text = table.columns
    assert (value.count, value.distinct) == (len(values), len(set(map(repr, values))))
    assert (value.minimum, value.maximum) == (min(values), max(values))
    assert value.mean == pytest.approx(statistics.fmean(values))
    assert (text.count, text.distinct, text.mean) == (len(values), len({f"x{other}" for other in others}), None)


@given(st.text(alphabet=st.sampled_from('ab1.,;\t|"\n\r\ufeff ')))
def test_any_text_has_statistics_or_a_csv_error(text: str) -> None:
    try:
        table = table_statistics(text)
    except csv.Error:
        return
    assert all(column.distinct <= column.count <= table.rows for column in table.columns)
    assert written(table)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.csv", "", True),
        ("a.TSV", "", True),
        ("a.md", "a,b\n1,2\n3,4\n", False),
        ("attachment 1", "a,b\n1,2\n3,4\n", True),
        ("attachment 1", "a;b\n1;2\n3;4\n", True),
        ("attachment 1", "a,b\nx,y\nz,w\n", False),
        ("attachment 1", "First, this\nThen, that\nSo, what\n", False),
        ("attachment 1", "a,b\n1,2\n3\n", False),
        ("attachment 1", "a\n1\n2\n", False),
        ("attachment 1", "a,b\n" + "1,2\n" * 10_000, True),
        ("attachment 1", "", False),
    ],
)
def test_what_counts_as_csv(name: str, text: str, expected: bool) -> None:
    assert looks_like_csv(name, text) is expected


def test_the_written_table_is_bounded_and_well_formed() -> None:
    header = ",".join(f"c{number}" for number in range(35))
    text = written(table_statistics(f"{header}\n{','.join('1' * 35)}\n1\n"))
    assert "35 columns" in text
    assert "... and 5 more columns" in text
    assert "1 of the rows have more or fewer cells" in text
    assert "not taken for a header" in written(table_statistics("1,2\n3,4\n"))
    assert written(table_statistics("")) == "The table is empty."
    assert "| a\\|b |" in written(table_statistics('"a|b",c\n1,2\n'))
    assert f"| {'x' * 37}... |" in written(table_statistics(f"{'x' * 50},c\n1,2\n"))
    assert "| 1e+300 |" in written(table_statistics("n\n1e300\n"))
