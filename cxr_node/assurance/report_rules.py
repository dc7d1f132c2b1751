"""What a radiology report says of pneumonia: present, absent or not stated. Text in, a word out; nothing is kept of it.

By listed phrases in English (`report_words.yaml`, to which a site adds its own), after NegEx (Chapman et al. 2001),
ConText (Harkema et al. 2009), NegBio (Peng et al. 2018) and the CheXpert labeler (Irvin et al. 2019). A hedge is no
answer: "cannot be excluded", "possible", "suspicious for" are not stated; "likely", "consistent with" are present, and
"unlikely" is absent. Knows no file format of reports, no ledger and no network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from cxr_node.config import strict_yaml
from cxr_node.errors import DataError

SHIPPED = Path(__file__).with_name("report_words.yaml")
_TYPO_FROM_LETTERS = 5
_BEHIND_WORDS = 12
"""A phrase that stands so far behind a mention is about something else."""
_BESIDE_WORDS = 4
_MOST_PHRASES = 50
"""On each side of a mention; no sentence of a report has more."""
MAX_CHARS = 100_000
"""Of a report; what follows is not read, whoever sent it."""
_BULLET = re.compile(r"^\s*(?:\d+[.)]|[-*•])\s+")
_WORD = re.compile(r"[a-z0-9#']+|\?|,")
_YEAR = re.compile(r"^20[0-9]{2}$")
_FIRST_SENTENCE = re.compile(r"\A.*?(?:[.!;?](?=\s)|\n|\Z)", re.DOTALL)
_SENTENCE = re.compile(r"[.!;]+(?=\s|$)|(?<=[a-z]{3})\.(?=[A-Z])")


class Said(StrEnum):
    """Of the finding, by a reader; the values are the ledger's words."""

    PRESENT = "present"
    ABSENT = "absent"
    NOT_STATED = "not-stated"


class Meant(StrEnum):
    """How one mention is meant."""

    AFFIRMED = "affirmed"
    NEGATED = "negated"
    UNCERTAIN = "uncertain"
    HISTORY = "history"
    HYPOTHETICAL = "hypothetical"


class Cues(BaseModel):
    """Phrases on one side of a mention."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    negated: tuple[str, ...] = ()
    uncertain: tuple[str, ...] = ()
    history: tuple[str, ...] = ()
    hypothetical: tuple[str, ...] = ()
    affirmed: tuple[str, ...] = ()


class Sections(BaseModel):
    """Headings."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    addendum: tuple[str, ...] = ()
    conclusion: tuple[str, ...] = ()
    body: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


class Words(BaseModel):
    """The word list; `report_words.yaml` says what each part is."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    findings: tuple[str, ...] = ()
    signs: tuple[str, ...] = ()
    signs_are_findings: bool | None = None
    normal: tuple[str, ...] = ()
    not_meant: tuple[str, ...] = ()
    neutral: tuple[str, ...] = ()
    sections: Sections = Sections()
    breaks: tuple[str, ...] = ()
    before: Cues = Cues()
    after: Cues = Cues()
    alternatives: tuple[str, ...] = ()
    short_forms: Mapping[str, str] = {}
    not_typos: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """What a report says, and by which rule: a word of ours, never one of the report's."""

    said: Said
    rule: str


class _Kind(StrEnum):
    FINDING = "finding"
    SIGN = "sign"
    NORMAL = "normal"
    OTHER = "other"
    BREAK = "break"
    CUE = "cue"


@dataclass(frozen=True, slots=True)
class _Meaning:
    """What a phrase may be: a mention, a break, or a cue before a mention, behind it, or both."""

    kind: _Kind
    before: Meant | None = None
    after: Meant | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """A phrase in a sentence; `first` and `last` count words."""

    meaning: _Meaning
    first: int
    last: int


def words_of(own: Path | None = None) -> Words:
    """The shipped list with a site's own. Raises DataError: the file cannot be read, or has a key that is none."""
    shipped = _read(SHIPPED)
    return shipped if own is None else _merged(shipped, _read(own))


def _read(path: Path) -> Words:
    try:
        return Words.model_validate(strict_yaml.load(path.read_text("utf-8")) or {})
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is malformed: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _merged(one: Words, other: Words) -> Words:
    """Phrases of both; a site's phrase takes the place of the same one in another list."""
    return Words.model_validate(_added(one.model_dump(), other.model_dump(exclude_unset=True)))


def _added(one: dict[str, object], other: Mapping[str, object]) -> dict[str, object]:
    merged = dict(one)
    for key, value in other.items():
        old = merged[key]
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            merged[key] = _added(dict(old), value)
        elif isinstance(value, tuple) and isinstance(old, tuple):
            merged[key] = (*old, *value)  # the last one counts where a phrase is in two lists
        else:
            merged[key] = value
    return merged


class Reader:
    """Reads reports by one word list."""

    def __init__(self, words: Words | None = None) -> None:
        self._words = words or words_of()
        self._short = {form.casefold(): text for form, text in self._words.short_forms.items()}
        self._phrases = self._meanings()
        self._longest = max(map(len, self._phrases))
        heads = {head: name for name, heads in self._words.sections.model_dump().items() for head in heads}
        self._sections = heads
        either = "|".join(re.escape(head).replace(r"\ ", r"\s+") for head in sorted(heads, key=len, reverse=True))
        self._heading = re.compile(rf"(?:^|(?<=[\s.;]))({either})\s*(?::|(?=\s*$))", re.IGNORECASE | re.MULTILINE)
        self._known = frozenset(word for phrase in self._phrases for word in phrase)
        self._correct = lru_cache(maxsize=20_000)(self._corrected)

    def _meanings(self) -> dict[tuple[str, ...], _Meaning]:
        words = self._words
        found: dict[tuple[str, ...], _Meaning] = {}
        for side, cues in (("before", words.before), ("after", words.after)):
            for meant in Meant:
                for phrase in getattr(cues, meant.value):
                    known = found.get(_split(phrase), _Meaning(_Kind.CUE))
                    other = {"before": known.before, "after": known.after} | {side: meant}
                    found[_split(phrase)] = _Meaning(_Kind.CUE, **other)
        lists = {
            _Kind.BREAK: words.breaks,
            _Kind.SIGN: words.signs,
            _Kind.FINDING: words.findings + (words.signs if words.signs_are_findings else ()),
            _Kind.NORMAL: words.normal,
            _Kind.OTHER: words.not_meant + words.neutral,
        }
        found |= {_split(phrase): _Meaning(kind) for kind, phrases in lists.items() for phrase in phrases}
        return found

    def read(self, text: str) -> Reading:
        """Read one report: what its addendum, else its conclusion, else its body says."""
        said = {name: self._section(part) for name, part in self._parts(text[:MAX_CHARS]).items()}
        found = [each for name in ("addendum", "conclusion", "body") if (each := said.get(name)) is not None]
        if not found:
            return Reading(Said.NOT_STATED, "no mention")
        first = found[0]
        if first.rule == "normal" and any(each.said is Said.PRESENT for each in found):
            return Reading(Said.NOT_STATED, "contradiction")
        return next((each for each in found if each.rule != "sign"), first)

    def _parts(self, text: str) -> dict[str, str]:
        """The text by section; what stands before any heading is body, and so is what follows the question alone."""
        parts: dict[str, str] = {}
        name, at = "body", 0
        for heading in self._heading.finditer(text):
            parts[name] = f"{parts.get(name, '')}\n{text[at : heading.start()]}"
            name, at = self._sections[" ".join(heading[1].casefold().split())], heading.end()
        rest = text[at:]
        if name == "skipped" and not {"conclusion", "addendum"} & parts.keys() and not parts.get("body", "").strip():
            name, rest = "body", _FIRST_SENTENCE.sub("", rest, count=1)  # a question, and no heading behind it
        parts[name] = f"{parts.get(name, '')}\n{rest}"
        return parts

    def _section(self, text: str) -> Reading | None:
        """What one section says; None where it says nothing."""
        mentions: dict[_Kind, set[Meant]] = {_Kind.FINDING: set(), _Kind.SIGN: set(), _Kind.NORMAL: set()}
        for sentence in _sentences(text):
            for kind, meant in self._mentions(sentence):
                mentions[kind].add(meant)
        findings, signs, normal = mentions[_Kind.FINDING], mentions[_Kind.SIGN], mentions[_Kind.NORMAL]
        if Meant.AFFIRMED in findings:
            return Reading(Said.PRESENT, "affirmed")
        if Meant.UNCERTAIN in findings:
            return Reading(Said.NOT_STATED, "uncertain")
        if Meant.NEGATED in findings:
            return Reading(Said.ABSENT, "negated")
        if signs & {Meant.AFFIRMED, Meant.UNCERTAIN}:
            return Reading(Said.NOT_STATED, "sign")
        if Meant.AFFIRMED in normal:
            return Reading(Said.ABSENT, "normal")
        return Reading(Said.ABSENT, "negated sign") if Meant.NEGATED in signs else None

    def _mentions(self, sentence: str) -> Iterator[tuple[_Kind, Meant]]:
        words = [self._correct(word) for word in _split(self._written_out(sentence))]
        found = list(self._found([_YEAR.sub("20##", word) for word in words]))
        for place, each in enumerate(found):
            if each.meaning.kind in (_Kind.FINDING, _Kind.SIGN):
                yield each.meaning.kind, self._meant(found, place, words)
            elif each.meaning.kind is _Kind.NORMAL:
                before = _nearest(found[max(0, place - _MOST_PHRASES) : place][::-1], "before")
                yield _Kind.NORMAL, Meant.NEGATED if before is Meant.NEGATED else Meant.AFFIRMED

    def _written_out(self, sentence: str) -> str:
        return " ".join(self._short.get(word, word) for word in sentence.casefold().split())

    def _found(self, words: Sequence[str]) -> Iterator[_Found]:
        """Phrases of the list, the longest first, from left to right; none overlaps another."""
        at = 0
        while at < len(words):
            for length in range(min(self._longest, len(words) - at), 0, -1):
                meaning = self._phrases.get(tuple(words[at : at + length]))
                if meaning is not None:
                    yield _Found(meaning, at, at + length - 1)
                    at += length
                    break
            else:
                at += 1

    def _meant(self, found: Sequence[_Found], place: int, words: Sequence[str]) -> Meant:
        mention = found[place]
        before = _nearest(found[max(0, place - _MOST_PHRASES) : place][::-1], "before")
        near = [each for each in found[place + 1 : place + _MOST_PHRASES] if each.first - mention.last <= _BEHIND_WORDS]
        after = _nearest(near, "after")
        if after in (Meant.NEGATED, Meant.HISTORY) and self._is_of_another(found, place, after, words):
            after = None
        meant = _together(before, after)
        beside = words[max(0, mention.first - _BESIDE_WORDS) : mention.last + 1 + _BESIDE_WORDS]
        if meant is Meant.AFFIRMED and set(beside) & set(self._words.alternatives):
            return Meant.UNCERTAIN
        return meant

    @staticmethod
    def _is_of_another(found: Sequence[_Found], place: int, after: Meant, words: Sequence[str]) -> bool:
        """Whether a comma stands between a mention and what is denied behind it."""
        cue = next(each for each in found[place + 1 :] if each.meaning.after is after)
        return "," in words[found[place].last : cue.first]

    def _corrected(self, word: str) -> str:
        """The word of the list that was probably meant: one letter more, less, changed, or two exchanged."""
        if word in self._known or len(word) < _TYPO_FROM_LETTERS or word in self._words.not_typos:
            return word
        near = [known for known in self._known if known[0] == word[0] and _is_near(word, known)]
        return near[0] if len(near) == 1 else word


def _together(before: Meant | None, after: Meant | None) -> Meant:
    """What both sides make of a mention; a doubt on either is a doubt, and two denials are one."""
    both = {before, after}
    if Meant.UNCERTAIN in both or (before is Meant.NEGATED and after is Meant.NEGATED):
        return Meant.UNCERTAIN
    if Meant.NEGATED in both:
        return Meant.NEGATED
    if after is Meant.AFFIRMED:
        return Meant.AFFIRMED
    return next((each for each in (Meant.HYPOTHETICAL, Meant.HISTORY) if each in both), Meant.AFFIRMED)


def _nearest(found: Sequence[_Found], side: str) -> Meant | None:
    """The first cue of a side, up to a break."""
    for each in found:
        if each.meaning.kind is _Kind.BREAK:
            return None
        meant: Meant | None = getattr(each.meaning, side)
        if meant is not None:
            return meant
    return None


def _split(text: str) -> tuple[str, ...]:
    return tuple(_WORD.findall(text.casefold()))


def _sentences(text: str) -> Iterator[str]:
    """Sentences: up to a full stop, a semicolon, an empty line, a bullet, or a line that begins with a capital."""
    shouted = text.isupper()
    block: list[str] = []
    for line in [*text.splitlines(), ""]:
        bare = _BULLET.sub("", line).strip()
        begins = not bare or bare != line.strip() or (bare[0].isupper() and not shouted)
        if begins and block:
            yield from _SENTENCE.split(" ".join(block))
            block = []
        if bare:
            block.append(bare)


def _is_near(word: str, known: str) -> bool:
    """Whether one edit, or one exchange of two neighbours, makes one of the other (Damerau 1964)."""
    if len(known) < _TYPO_FROM_LETTERS or abs(len(word) - len(known)) > 1:
        return False
    start = next((at for at, (one, other) in enumerate(zip(word, known, strict=False)) if one != other), None)
    if start is None:
        return True
    mine, its = word[start:], known[start:]
    swapped = mine[:2] == its[1::-1] and len(mine) > 1 and mine[2:] == its[2:]
    return swapped or mine[1:] == its[1:] or mine[1:] == its or mine == its[1:]
