"""Words, and which of them tell what a text is about."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+|[-_][^\W_]+|\d+)*")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_STOP_WORD_LIST = """
    a about above after again against all also always an and any are aren't as at be because been before being below
    between both but by can cannot can't could did do does doesn't doing don't down during each either else etc
    every few for from further get gets give given goes had has have having he her here hers him his how however
    i if in into is isn't it its it's itself just let like made make makes many may me might more most much must
    my need needs neither never new no nor not now of off often on once one only onto or other others our ours out over
    own per please same see several shall she should since so some still such take takes than that that's the
    their them then there these they this those though through thus to too two under until up upon us use used
    uses using very via was wasn't we were what when where whether which while who whom whose why will with
    within without would yet you your yours
    der die das den dem des ein eine einen einem einer und oder aber ist sind war nicht mit von für auf im zu
    le la les un une des et est dans pour que qui sur pas avec el los las una por con para
    http https www com
"""
_STOP_WORDS = frozenset(_STOP_WORD_LIST.split())


def count_words(text: str) -> int:
    """How many words; in Chinese, Japanese and Korean every character counts as one."""
    cjk = sum(len(run) for run in _CJK.findall(text))
    return len(re.findall(r"[^\W_]+(?:['’.,-][^\W_]+)*", _CJK.sub(" ", text))) + cjk


def term_counts(text: str) -> Counter[str]:
    """How often each term occurs, without stop words. Terms of scripts without spaces are pairs."""
    counts: Counter[str] = Counter()
    for run in _CJK.findall(text):
        counts.update(run[i : i + 2] for i in range(len(run) - 1))
    for word in _WORD.findall(_CJK.sub(" ", text).lower()):
        if len(word) > 2 and word not in _STOP_WORDS:
            counts[word] += 1
    return counts


def telling_terms(counts: Mapping[str, int], limit: int = 8) -> list[tuple[str, int]]:
    """The terms that say most about one text: frequent ones, and among those the longer."""

    def weight(term: str) -> float:
        return counts[term] * math.sqrt(min(len(term), 12))

    return _best(counts, weight, limit)


def distinguishing_terms(all_counts: Sequence[Mapping[str, int]], limit: int = 6) -> list[list[tuple[str, int]]]:
    """For each of several texts, the terms that are frequent in it and rare in the others."""
    in_texts = Counter(term for counts in all_counts for term in counts)
    totals = [sum(counts.values()) or 1 for counts in all_counts]
    best = []
    for counts, total in zip(all_counts, totals, strict=True):
        rarity = {term: math.log(len(all_counts) / in_texts[term]) for term in counts}

        def weight(
            term: str, counts: Mapping[str, int] = counts, total: int = total, rarity: dict[str, float] = rarity
        ) -> float:
            return counts[term] / total * rarity[term] * math.sqrt(min(len(term), 12))

        best.append(_best({term: counts[term] for term in counts if rarity[term] > 0}, weight, limit))
    return best


def shared_terms(all_counts: Sequence[Mapping[str, int]], limit: int = 6) -> list[str]:
    """Terms that all texts use, the most used first."""
    common = set.intersection(*(set(counts) for counts in all_counts))
    least = {term: min(counts[term] for counts in all_counts) for term in common}
    return [term for term, _ in telling_terms(least, limit)]


def _best(counts: Mapping[str, int], weight: Callable[[str], float], limit: int) -> list[tuple[str, int]]:
    ranked = sorted(counts, key=lambda term: (-weight(term), term))
    return [(term, counts[term]) for term in ranked[:limit]]
