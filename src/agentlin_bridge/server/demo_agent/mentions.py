"""Which files an instruction names."""

from __future__ import annotations

import re


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_EXTENSIONS = _words(
    "md markdown mdx rst adoc txt text log csv tsv json jsonl ndjson yaml yml toml ini cfg conf env xml html htm "
    "css svg tex bib srt vtt eml diff patch py pyi ipynb js mjs ts tsx jsx java kt c h cc cpp hpp cs go rs rb php "
    "pl lua r sql sh bash ps1 bat pdf doc docx odt rtf xls xlsx ods ppt pptx png jpg jpeg gif webp zip gz parquet"
)
_DOMAINS = _words("com org net io dev ai edu gov app co de uk cn fr eu online info")
_SPOKEN = _words("node.js next.js vue.js react.js express.js three.js d3.js nuxt.js")
_WITHOUT_EXTENSION = _words("readme license licence changelog makefile dockerfile notice authors")

_NO_FILE = re.compile(r"\b[A-Za-z][A-Za-z0-9+.-]{1,15}://\S+|\bwww\.\S+|[\w.+-]{1,64}@[\w-]{1,64}\.[\w.-]{1,64}")
_QUOTED = re.compile(
    r"`([^`\n]{1,260})`"
    r'|"([^"\n]{1,260})"'
    r"|(?<!\w)'([^'\n]{1,260})'(?!\w)"
    r"|[“„]([^“”\n]{1,260})[“”]"
    r"|[«「]([^»」\n]{1,260})[»」]"
)
_PART = r"[\w@+-](?:[\w.@+-]{0,118}[\w@+-])?"
_SEP = r"[\\/]"
_BARE = re.compile(
    rf"(?<![A-Za-z0-9_@\\/.~-])"
    rf"(?P<root>[A-Za-z]:{_SEP}|~{_SEP}|(?:\.{{1,2}}{_SEP})+|{_SEP}{{1,2}})?"
    rf"(?P<path>(?:{_PART}{_SEP}){{0,30}}(?:{_PART}))"
    rf"(?![A-Za-z0-9_\\/]|\.[A-Za-z0-9])"
)
_EXTENSION = re.compile(r"[^\\/.]\.([A-Za-z][A-Za-z0-9]{0,9})$")
# Scripts without spaces write the next word right behind a file's extension.
_PIECES = re.compile(r".+?\.[A-Za-z][A-Za-z0-9]{0,9}(?=[^\x00-\x7f])|.+")
_FOREIGN_PREFIX = re.compile(r"^[^\x00-\x7f]+(?=[A-Za-z0-9])")


def mentioned_files(text: str) -> list[str]:
    """The paths a text names, in order, each once.

    Found are quoted and backticked paths, and bare words that have a file's extension or start like a
    path. URLs, e-mail addresses, domains, version numbers and abbreviations are not files.
    """
    text = _NO_FILE.sub(lambda match: " " * len(match[0]), text)
    found: dict[int, str] = {}

    def take(match: re.Match[str]) -> str:
        name = next(group for group in match.groups() if group is not None).strip()
        if not _is_quoted_path(name):
            return match[0]
        found[match.start()] = name
        return " " * len(match[0])

    text = _QUOTED.sub(take, text)
    for match in _BARE.finditer(text):
        for piece in _PIECES.finditer(match["path"]):
            root = (match["root"] or "") if piece.start() == 0 else ""
            if name := _bare_path(root, piece[0]):
                found[match.start() + piece.start()] = name
    return list(dict.fromkeys(found[position] for position in sorted(found)))


def _is_quoted_path(name: str) -> bool:
    last = re.split(r"[\\/]", name)[-1]
    if last.lower() in _WITHOUT_EXTENSION:
        return " " not in name
    extension = _EXTENSION.search(name)
    if extension is None or (last == name and not _is_file_name(last, extension[1])):
        return False
    # A quoted sentence may name files; it is none itself.
    return name.count(" ") <= 5 and len([word for word in name.split() if _EXTENSION.search(word)]) == 1


def _bare_path(root: str, path: str) -> str | None:
    if not root:
        path = _FOREIGN_PREFIX.sub("", path)
    parts = re.split(r"[\\/]", path)
    extension = _EXTENSION.search(path)
    if root:
        return root + path if extension or len(parts) > 1 or root.strip("\\/") else None
    if extension is None:
        return None
    if len(parts) == 1:
        return path if _is_file_name(path, extension[1]) else None
    head = parts[0].rpartition(".")
    return None if head[0] and head[2].lower() in _DOMAINS else path


def _is_file_name(name: str, extension: str) -> bool:
    return extension.lower() in _EXTENSIONS and name.lower() not in _SPOKEN
