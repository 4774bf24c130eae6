"""Which files an instruction names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentlin_bridge.server.demo_agent.mentions import mentioned_files


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("Digest README.md.", ["README.md"]),
        ("README.md's outline, data/sales.csv; (notes.txt)!", ["README.md", "data/sales.csv", "notes.txt"]),
        ("../x/y.txt ./Makefile ~/a.md /etc/hosts", ["../x/y.txt", "./Makefile", "~/a.md", "/etc/hosts"]),
        (r"open C:\x\y.md and docs\guide.md", [r"C:\x\y.md", r"docs\guide.md"]),
        ("`my notes.txt` and \"other notes.txt\" and 'third.md'", ["my notes.txt", "other notes.txt", "third.md"]),
        ("“a b.md” «c.csv» 「d.txt」", ["a b.md", "c.csv", "d.txt"]),
        ("`Makefile` and `LICENSE`, but a Makefile", ["Makefile", "LICENSE"]),
        ('He said "read a.md and b.md".', ["a.md", "b.md"]),
        ("a.md, b.md, then a.md again", ["a.md", "b.md"]),
        ("path:a.md x=b.md [c](d.md)", ["a.md", "b.md", "d.md"]),
        ("docs/guide.v2.md a.tar.gz FILE.MD", ["docs/guide.v2.md", "a.tar.gz", "FILE.MD"]),
        ("请总结README.md和data.csv", ["README.md", "data.csv"]),
        ("résumé.md", ["résumé.md"]),
        ("src/pkg/module.xyz", ["src/pkg/module.xyz"]),
        ("see https://example.com/a.md, www.x.org/b.md or me@mail.md", []),
        ("example.com, example.com/a.html, Node.js, `Vue.js`", []),
        ("version 1.2, v1.2.3, 3.14, x==1.2.3", []),
        ("e.g. this, i.e. that, etc. U.S. Then.Now", []),
        ("agentlin_bridge.task.TaskObject, and/or, km/h, /x", []),
        ("README.md.bak `a sentence.` `x.unknown`", []),
        ("", []),
    ],
)
def test_examples(text: str, files: list[str]) -> None:
    assert mentioned_files(text) == files


stems = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,8}[A-Za-z0-9]", fullmatch=True)
names = st.builds("{}.{}".format, stems, st.sampled_from(["md", "txt", "csv", "py", "json"])).filter(
    lambda name: "py.py" not in name
)
paths = st.builds(
    lambda root, folders, name: root + "".join(folder + "/" for folder in folders) + name,
    st.sampled_from(["", "./", "../", "~/", "/"]),
    st.lists(stems, max_size=3),
    names,
)
WORDS = "compare the and, with file: version 1.2 e.g. then; it's for you (all) - https://a.io/b.md"
words = st.sampled_from(WORDS.split())
around = st.sampled_from(["{}", "{},", "{}.", "({})", "`{}`", '"{}"', "{}?", "{};", "[{}]", "{}:"])


@given(st.lists(st.tuples(st.lists(words, max_size=4), around, paths), max_size=5))
def test_every_path_in_a_sentence_is_found_and_nothing_else(parts: list[tuple[list[str], str, str]]) -> None:
    text = " ".join(" ".join([*before, wrap.format(path)]) for before, wrap, path in parts)
    assert mentioned_files(text) == list(dict.fromkeys(path for _, _, path in parts))


@given(st.text(max_size=300))
def test_any_text_can_be_searched(text: str) -> None:
    found = mentioned_files(text)
    assert len(set(found)) == len(found)
    assert all(name in text for name in found)
