"""What may be wrong with an object: each function breaks one thing of a draft, where its dice say."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.chaos.corpus import (
    CANARY,
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    SERIES_INSTANCE_UID,
    SOP_INSTANCE_UID,
    STUDY_INSTANCE_UID,
    SYNTAXES,
    UNDEFINED,
    VRS,
    Draft,
    Element,
    deflated,
    even,
    read,
    tag,
    valid,
    write,
)

_PIXEL_DATA = 0x7FE00010
_UIDS = (0x00080016, SOP_INSTANCE_UID, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID)
_PE = b"MZ\x90\0" + bytes(56) + struct.pack("<I", 128) + bytes(64)
_ELF = b"\x7fELF\x02\x01\x01" + bytes(121)
_SEQUENCE = 0x00082218  # Anatomic Region Sequence
_LENGTHS = (0, 1, 2, 3, 7, 0x7FFE, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFF0, 0xFFFFFFFE, UNDEFINED)
_JUNK_TEXT = (
    b"\xff\xfe\xfd\xfc", b"\x1b$B\x1b", b"\\" * 64, b"^=^=^=" * 20, b"nan ", b"1e400 ", b"-1", b"99999999999999999999",
    b"\0\0\0\0", b"%s%n%x%d", b"20249999", b"999Y", b"\xe2\x80\xae", b"${jndi:x}", b"A" * 70000, b"1\\2\\3\\x ",
)  # fmt: skip
_CHARSETS = (
    b"ISO_IR 192", b"GB18030 ", b"ISO 2022 IR 87", b"\\ISO 2022 IR 149", b"ISO_IR 999", b"NONSENSE", b"", b"\xff\xff",
    b"ISO_IR 100\\ISO_IR 192\\GBK ", b"\\" * 32, b"utf-8\0",
)  # fmt: skip


def _some(draft: Draft, dice: random.Random) -> Element:
    return dice.choice(draft.elements)


def wrong_tag(draft: Draft, dice: random.Random) -> None:
    _some(draft, dice).tag = dice.choice((0, 0x00020010, 0x00080000, 0xFFFEE000, 0xFFFEE0DD, dice.getrandbits(32)))


def wrong_vr(draft: Draft, dice: random.Random) -> None:
    _some(draft, dice).vr = dice.choice((*VRS, b"ZZ", b"\0\0", b"  ", dice.randbytes(2)))


def wrong_length(draft: Draft, dice: random.Random) -> None:
    element = _some(draft, dice)
    true = len(element.value)
    element.length = dice.choice((*_LENGTHS, true + 1, true + 2, max(0, true - 1), max(0, true - 2)))


def odd_length(draft: Draft, dice: random.Random) -> None:
    element = _some(draft, dice)
    if isinstance(element.value, bytes):
        element.value += b"x"


def twice(draft: Draft, dice: random.Random) -> None:
    element = _some(draft, dice)
    draft.elements.insert(draft.elements.index(element) + dice.choice((0, 1)), element)


def out_of_order(draft: Draft, dice: random.Random) -> None:
    element = _some(draft, dice)
    draft.elements.remove(element)
    draft.elements.insert(dice.randrange(len(draft.elements) + 1), element)


def left_out(draft: Draft, dice: random.Random) -> None:
    draft.elements.remove(_some(draft, dice))


def only_a_few(draft: Draft, dice: random.Random) -> None:
    draft.elements = [element for element in draft.elements if dice.random() < 0.5]


def empty(draft: Draft, dice: random.Random) -> None:
    _some(draft, dice).value = b""


def junk_text(draft: Draft, dice: random.Random) -> None:
    element = _some(draft, dice)
    if element.tag != _PIXEL_DATA:
        element.value = dice.choice(_JUNK_TEXT)


def random_value(draft: Draft, dice: random.Random) -> None:
    _some(draft, dice).value = dice.randbytes(dice.choice((1, 2, 4, 8, 64, 1000)))


def charset(draft: Draft, dice: random.Random) -> None:
    draft.put(0x00080005, b"CS", dice.choice(_CHARSETS))
    draft.put(0x00100010, b"PN", dice.randbytes(dice.choice((6, 20, 200))))


def group_length(draft: Draft, dice: random.Random) -> None:
    for group in dice.sample((0x0008, 0x0010, 0x0018, 0x0020, 0x0028), 2):
        draft.put(group << 16, b"UL", struct.pack("<I", dice.choice(_LENGTHS)))


def uid(draft: Draft, dice: random.Random) -> None:
    """A UID that is a path, has a NUL, is too long, or is none; the command says the same, or the right one."""
    value = dice.choice(
        (
            f"../../../../../../tmp/{CANARY}".encode(),
            f"/tmp/{CANARY}".encode(),
            f"..\\..\\{CANARY}".encode(),
            f"1.2.3/../{CANARY}".encode(),
            b"1.2.3\0.4", b"1.2.3\0/../x", b"1." + b"2" * 63, b"1." * 100, b"", b" ", b".", b"..", b"1..2", b"01.02",
            b"1.2.3\n4", b"1.2.3\\1.2.4", b"\xff\xfe", b"-1.2", b"1.2.3 ", b"1.2.x", b"%2e%2e%2f", b"CON", b"1.2.3.",
        )
    )  # fmt: skip
    which = dice.choice(_UIDS)
    draft.put(which, b"UI", even(value))
    if which == SOP_INSTANCE_UID and dice.random() < 0.7:
        draft.affected_uid = value


def contradiction(draft: Draft, dice: random.Random) -> None:
    draft.affected_uid = dice.choice((b"1.2.3.4.5", b"", b"1.2.3.4.5\0", draft.affected_uid + b".1"))


def nested(draft: Draft, dice: random.Random) -> None:
    """Sequences within sequences, 2 to 5,000 deep, their lengths defined or not."""
    depth, defined = dice.choice((2, 10, 15, 17, 100, 1000, 5000)), dice.random() < 0.5
    inner = write([Element(0x00080100, b"SH", b"X ")], draft.explicit)
    for _ in range(depth):
        element = Element(_SEQUENCE, b"SQ", tag(ITEM, len(inner)) + inner)
        if not defined:
            body = tag(ITEM, UNDEFINED) + inner + tag(ITEM_END, 0) + tag(SEQUENCE_END, 0)
            element = Element(_SEQUENCE, b"SQ", body, UNDEFINED)
        inner = write([element], draft.explicit)
    draft.put(_SEQUENCE, b"SQ", element.value).length = element.length


def broken_sequence(draft: Draft, dice: random.Random) -> None:
    """Items that are none, are cut, are longer than their sequence, or have no end."""
    inside = write([Element(0x00080100, b"SH", b"X "), Element(0x00080102, b"SH", b"Y ")], draft.explicit)
    value = dice.choice(
        (
            inside,
            dice.randbytes(40),
            tag(ITEM, len(inside) + 100) + inside,
            tag(ITEM, 3) + inside,
            tag(ITEM, UNDEFINED) + inside,
            tag(ITEM_END, 0) + tag(ITEM, len(inside)) + inside,
            tag(ITEM, len(inside)) + inside[:-3],
            tag(ITEM, len(inside)) + inside + b"\xfe",
            tag(ITEM, 0xFFFFFFF0),
            tag(SEQUENCE_END, 8) + bytes(8),
        )
    )
    element = draft.put(_SEQUENCE, b"SQ", value)
    element.length = dice.choice((None, None, UNDEFINED))
    element.delimited = dice.random() < 0.5


def endless_sequence(draft: Draft, dice: random.Random) -> None:
    for element in draft.elements:
        if isinstance(element.value, list) and dice.random() < 0.7:
            element.length, element.delimited = UNDEFINED, dice.random() < 0.3


def huge_attribute(draft: Draft, dice: random.Random) -> None:
    draft.put(0x00291010, dice.choice((b"OB", b"UN", b"UT")), bytes(dice.choice((1 << 20, (1 << 20) + 2, 3 << 20))))


def many_attributes(draft: Draft, dice: random.Random) -> None:
    number = dice.choice((1000, 20_000, 60_000))
    draft.elements += [Element(0x00110000 | 0x1000 + place, b"LO", b"") for place in range(number)]
    draft.elements.sort(key=lambda each: each.tag)


def number_text(draft: Draft, dice: random.Random) -> None:
    value = dice.choice((b"-1", b"0 ", b"1e9 ", b"x ", b"2147483648", b"1\\2 ", b"9" * 400))
    draft.put(0x00280008, b"IS", value)


def size(draft: Draft, dice: random.Random) -> None:
    which = dice.choice((0x00280010, 0x00280011, 0x00280002, 0x00280100, 0x00280101, 0x00280102, 0x00280103))
    draft.put(which, b"US", struct.pack("<H", dice.choice((0, 1, 3, 7, 8, 16, 32, 64, 137, 4096, 65535))))


def text_for_number(draft: Draft, dice: random.Random) -> None:
    draft.put(dice.choice((0x00281050, 0x00281051, 0x00281052, 0x00281053)), b"DS", dice.choice(_JUNK_TEXT)[:60])


def pixels(draft: Draft, dice: random.Random) -> None:
    """Shorter or longer than declared, odd, absent, fragments where there are none."""
    element = draft.find(_PIXEL_DATA)
    if element is None or not isinstance(element.value, bytes):
        return
    content = element.value
    fragment = tag(ITEM, 0) + tag(ITEM, 64) + dice.randbytes(64)
    element.value = dice.choice(
        (
            content[: len(content) // 2],
            content[:-1],
            content + bytes(1001),
            content + content,
            b"",
            fragment + tag(SEQUENCE_END, 0),
            fragment,
            tag(ITEM, 0xFFFFFFF0) + content,
            tag(ITEM, 4) + b"\xff\xff\xff\xff" + content[8:],
            content.replace(b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0"),
            content.replace(b"\xfe\xff\xdd\xe0", b"\xfe\xff\x00\xe0"),
            content[: dice.randrange(len(content) + 1)] + dice.randbytes(50) + content[len(content) // 2 :],
        )
    )
    element.length = dice.choice((element.length, element.length, None, UNDEFINED))


def codestream(draft: Draft, dice: random.Random) -> None:
    """A few bytes of the compressed image, its header among them."""
    element = draft.find(_PIXEL_DATA)
    if element is not None and isinstance(element.value, bytes) and element.value:
        content = bytearray(element.value)
        for _ in range(dice.choice((1, 3, 20))):
            content[dice.randrange(min(len(content), dice.choice((64, 400, len(content)))))] = dice.randrange(256)
        element.value = bytes(content)


def other_syntax(draft: Draft, dice: random.Random) -> None:
    """Sent under another transfer syntax than it is encoded in."""
    draft.syntax = dice.choice(SYNTAXES)


def other_vr_encoding(draft: Draft, dice: random.Random) -> None:
    draft.explicit = not draft.explicit


def is_deflated(draft: Draft, dice: random.Random) -> None:
    draft.last.append(deflated)


def big_endian_head(draft: Draft, dice: random.Random) -> None:
    draft.last.append(lambda content: b"\x00\x08\x00\x16UI" + content[6:])


def polyglot(draft: Draft, dice: random.Random) -> None:
    """A whole Part 10 file where a data set should be, its preamble a program; or the program alone, or meta."""
    program = dice.choice((_PE, _ELF))
    meta = Element(0x00020010, b"UI", even(draft.syntax.encode()))
    head = dice.choice((program + b"DICM", program, program + b"DICM" + write([meta], True), write([meta], True)))
    draft.last.append(lambda content: head + content)


def cut(draft: Draft, dice: random.Random) -> None:
    draft.last.append(lambda content: content[: dice.randrange(len(content) + 1)])


def appended(draft: Draft, dice: random.Random) -> None:
    more = dice.choice((bytes(1000), dice.randbytes(1000), write([Element(0xFFFCFFFC, b"OB", bytes(128))], True)))
    draft.last.append(lambda content: content + more)


def flipped(draft: Draft, dice: random.Random) -> None:
    def flip(content: bytes) -> bytes:
        changed = bytearray(content or b"\0")
        for _ in range(dice.choice((1, 2, 10, 100))):
            changed[dice.randrange(min(len(changed), dice.choice((300, 3000, len(changed)))))] = dice.randrange(256)
        return bytes(changed)

    draft.last.append(flip)


def spliced(draft: Draft, dice: random.Random) -> None:
    def splice(content: bytes) -> bytes:
        at, to = dice.randrange(len(content) + 1), dice.randrange(len(content) + 1)
        return content[:at] + content[to:]

    draft.last.append(splice)


def noise(draft: Draft, dice: random.Random) -> None:
    draft.last.append(lambda _: dice.randbytes(dice.choice((0, 1, 100, 5000))))


Mutation = Callable[[Draft, random.Random], None]
MUTATIONS: tuple[Mutation, ...] = (
    wrong_tag, wrong_vr, wrong_length, odd_length, twice, out_of_order, left_out, only_a_few, empty, junk_text,
    random_value, charset, group_length, uid, contradiction, nested, broken_sequence, endless_sequence, huge_attribute,
    many_attributes, number_text, size, text_for_number, pixels, codestream, other_syntax, other_vr_encoding,
    is_deflated, big_endian_head, polyglot, cut, appended, flipped, spliced, noise,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """What is sent."""

    number: int
    changes: tuple[str, ...]
    syntax: str
    affected_uid: bytes
    data_set: bytes


def mutant(seed: int, number: int) -> Mutant:
    """The numbered object of a corpus; one in twenty is left as it is."""
    dice = random.Random(f"{seed}/{number}")
    syntax = dice.choice((SYNTAXES[0], SYNTAXES[0], *SYNTAXES))
    changes = dice.sample(MUTATIONS, dice.choice((1, 1, 1, 2, 3))) if number % 20 else []
    draft = mutate(dice, syntax, changes, f"1.2.826.0.1.3680043.8.498.79.{seed}.{number}".encode())
    names = tuple(change.__name__ for change in changes)
    return Mutant(
        number=number, changes=names, syntax=draft.syntax, affected_uid=draft.affected_uid, data_set=draft.encoded()
    )


def mutate(dice: random.Random, syntax: str, changes: Sequence[Mutation], instance: bytes = b"1.2.3") -> Draft:
    """A valid object of that name, with each of the changes made to it."""
    draft = Draft(read(valid(syntax)), syntax, syntax != SYNTAXES[1], instance)
    draft.put(SOP_INSTANCE_UID, b"UI", even(instance))
    draft.put(STUDY_INSTANCE_UID, b"UI", even(instance + b".1"))
    draft.put(SERIES_INSTANCE_UID, b"UI", even(instance + b".2"))
    for change in changes:
        change(draft, dice)
    return draft
