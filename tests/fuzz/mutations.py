"""How files are damaged: by random numbers that are given, so that it can be repeated."""

import io
import re
import struct
import zipfile
import zlib

MAX_BYTES = 1_000_000
"""Mutated files are cut to this length, so that what a reader takes can be held against it."""

INTEGERS = (0, 1, -1, 127, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, -(2**31), 2**32 - 1, 2**40, 2**63)
NUMBERS = (
    "-1",
    "1e999",
    "NaN",
    "9" * 30,
    "9" * 400,
    "9" * 5000,
    "0.1",
    "1" + "0" * 9,
    "-0",
    "60000",
)
WORDS = (
    "../../x",
    "/etc/passwd",
    "..\\x",
    ".hidden",
    "a\0b",
    "\\ud800",
    "\\u0000",
    "null",
    "[]",
    "{}",
    "true",
    '"',
    "\u2028",
    "&lt;&#0;&e;",
    '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>',
    "<![CDATA[",
    "<name>",
    "x" * 300,
)
NESTINGS = (("[", "]"), ("{", "}"), ('{"a":', "}"), ("<object>", "</object>"), ("(", ")"))
TEXT_KINDS = ("xml", "list", "classes", "csv", "labels_json", "json", "instances", "result")


def mutate(data, others, kind, rng):
    """`data` damaged in one to eight places.

    Args:
        data: a good file.
        others: good files of the same kind, to splice with.
        kind: the folder of the seeds; it decides which damage reaches deep into the reader.
        rng: a random.Random.
    """
    if kind == "checkpoint" and data[:2] == b"PK" and rng.random() < 0.8:
        return _in_archive(data, others, rng)[:MAX_BYTES]
    if kind == "image" and data[:4] == b"\x89PNG" and rng.random() < 0.7:
        return _in_png(data, others, rng)[:MAX_BYTES]
    if kind == "npy" and rng.random() < 0.7:
        start = data.index(b"\n") + 1
        return (data[:start] + _damaged(data[start:], others, rng))[:MAX_BYTES]
    texts = kind in TEXT_KINDS
    return _damaged(data, others, rng, _TEXT + _BINARY if texts else _BINARY)[:MAX_BYTES]


def _damaged(data, others, rng, ways=None):
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        data = rng.choice(ways or _BINARY)(data, others, rng)
    return data


# --- bytes ----------------------------------------------------------------------------------------


def _place(data, rng, longest=64):
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.randint(1, longest))


def _flip(data, others, rng):
    copy = bytearray(data)
    for _ in range(rng.randint(1, 4) if data else 0):
        copy[rng.randrange(len(copy))] ^= 1 << rng.randrange(8)
    return bytes(copy)


def _overwrite(data, others, rng):
    start, end = _place(data, rng, 8)
    return data[:start] + rng.randbytes(end - start) + data[end:]


def _insert(data, others, rng):
    start, _ = _place(data, rng)
    return data[:start] + rng.randbytes(rng.randint(1, 16)) + data[start:]


def _delete(data, others, rng):
    start, end = _place(data, rng)
    return data[:start] + data[end:]


def _duplicate(data, others, rng):
    start, end = _place(data, rng)
    times = rng.choice((1, 1, 2, 50, 2000))
    return data[:end] + data[start:end] * times + data[end:]


def _truncate(data, others, rng):
    return data[: rng.randrange(len(data) + 1)]


def _splice(data, others, rng):
    other = rng.choice(others)
    start, end = _place(other, rng, len(other))
    here, there = _place(data, rng)
    return data[:here] + other[start:end] + data[rng.choice((here, there)) :]


def _integer(data, others, rng):
    size = rng.choice((1, 2, 4, 8))
    value = rng.choice(INTEGERS) % 256**size
    start, _ = _place(data, rng)
    field = value.to_bytes(size, rng.choice(("little", "big")))
    return data[:start] + field + data[start + size :]


_BINARY = (_flip, _overwrite, _insert, _delete, _duplicate, _truncate, _splice, _integer, _integer)


# --- text -----------------------------------------------------------------------------------------


def _replace_match(pattern, data, rng, new):
    found = list(re.finditer(pattern, data))
    if not found:
        return data
    match = rng.choice(found)
    return data[: match.start()] + new + data[match.end() :]


def _number(data, others, rng):
    return _replace_match(rb"-?\d+(\.\d+)?", data, rng, rng.choice(NUMBERS).encode())


def _word(data, others, rng):
    return _replace_match(rb"[^\W\d]+", data, rng, rng.choice(WORDS).encode("utf-8", "replace"))


def _string(data, others, rng):
    """Another value for a quoted one, or the other way round."""
    return _replace_match(rb'"[^"]*"|\d+', data, rng, rng.choice((b'"a"', b"7", b"[7]", b"{}")))


def _nest(data, others, rng):
    left, right = (part.encode() for part in rng.choice(NESTINGS))
    depth = rng.choice((1, 10, 900, 5000, 50_000))
    start, end = _place(data, rng)
    closed = right * depth if rng.random() < 0.7 else b""
    return data[:start] + left * depth + data[start:end] + closed + data[end:]


def _exchange(data, others, rng):
    tokens = re.split(rb"(\W+)", data)
    first, second = rng.randrange(len(tokens)), rng.randrange(len(tokens))
    tokens[first], tokens[second] = tokens[second], tokens[first]
    return b"".join(tokens)


def _strange(data, others, rng):
    start, _ = _place(data, rng)
    strange = (b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\r", b"\n", b'"', b"\x1b[2J")
    return data[:start] + rng.choice(strange) + data[start:]


def _long_line(data, others, rng):
    start, _ = _place(data, rng)
    piece = rng.choice((b"a", b"1", b" ", b",", b"\n", b"[", b"\\", b"o"))
    return data[:start] + piece * rng.choice((300, 5000, 200_000)) + data[start:]


_TEXT = (_number, _number, _word, _word, _string, _nest, _exchange, _strange, _long_line)


# --- containers -----------------------------------------------------------------------------------


def _in_archive(data, others, rng):
    """Damage to one record of a zip archive, packed again so that readers get to it."""
    entries = [(e.filename, content) for e, content in _entries(data)]
    pickles = [k for k, (name, _) in enumerate(entries) if name.endswith("data.pkl")]
    target = pickles[0] if rng.random() < 0.8 else rng.randrange(len(entries))
    name, content = entries[target]
    entries[target] = (name, _damaged(content, [content, *others], rng))
    method = zipfile.ZIP_DEFLATED if rng.random() < 0.1 else zipfile.ZIP_STORED
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return buffer.getvalue()


def _entries(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(entry, archive.read(entry)) for entry in archive.infolist()]


def _in_png(data, others, rng):
    """Damage to one chunk of a PNG, under a check sum that fits."""
    chunks = list(_chunks(data))
    target = rng.randrange(len(chunks))
    kind, content = chunks[target]
    if kind == b"IDAT" and rng.random() < 0.5:
        content = zlib.compress(_damaged(zlib.decompress(content), others, rng))
    else:
        content = _damaged(content, others, rng)
    chunks[target] = (kind, content)
    if rng.random() < 0.2:
        chunks.insert(rng.randrange(len(chunks)), rng.choice(chunks))
    return data[:8] + b"".join(png_chunk(*chunk) for chunk in chunks)


def _chunks(data):
    start = 8
    while start < len(data):
        (length,) = struct.unpack_from(">I", data, start)
        yield data[start + 4 : start + 8], data[start + 8 : start + 8 + length]
        start += 12 + length


def png_chunk(kind, content):
    """A chunk of a PNG file."""
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))
