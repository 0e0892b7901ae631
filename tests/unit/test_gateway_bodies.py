"""What a gateway takes for a body, and what it tells the sender of the rest."""

from __future__ import annotations

import gzip
import sys
import zlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tailrace.gateway.bodies import BodyLimits, decode, inflate
from tailrace.gateway.refusals import RefusedError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LIMITS = BodyLimits(
    body_bytes_max=10_000,
    compressed_bytes_max=5_000,
    form_bytes_max=2_000,
    rows_max=20,
    fields_max=10,
    containers_max=200,
    depth_max=30,
)
LINES = "application/x-ndjson"
FORM = "application/x-www-form-urlencoded"


def refused(body: bytes, kind: str | None = None) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        decode(body, kind, LIMITS)
    return caught.value


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.lists(json_values, max_size=15))
def test_an_array_keeps_its_bytes_and_values(values: list[object]) -> None:
    """What stands between a message's brackets is what stood between the array's."""
    posted = decode(orjson.dumps(values), "application/json", LIMITS)
    assert posted.rows == values
    assert orjson.loads(b"[" + posted.values + b"]") == values


@given(st.lists(json_values, max_size=15))
def test_lines_are_an_array_without_brackets(values: list[object]) -> None:
    posted = decode(b"\n".join(orjson.dumps(value) for value in values), LINES, LIMITS)
    assert posted.rows == values
    assert orjson.loads(b"[" + posted.values + b"]") == values


@given(st.binary(max_size=200), st.sampled_from([None, "application/json", LINES, FORM]))
def test_any_bytes_are_taken_or_refused(body: bytes, kind: str | None) -> None:
    """A body that is taken makes a JSON array of as many values; any other has a reason. Nothing else is raised."""
    try:
        posted = decode(body, kind, LIMITS)
    except RefusedError as error:
        assert error.status in (400, 413)
        assert error.reason
    else:
        assert len(orjson.loads(b"[" + posted.values + b"]")) == len(posted.rows)


@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "zstd"]))
def test_any_bytes_inflate_or_are_refused(raw: bytes, coding: str) -> None:
    try:
        inflate(raw, coding, LIMITS)
    except RefusedError as error:
        assert error.status in (400, 413)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{", "column"),
        (b'{"a": NaN}', "line 1 column 7"),
        (b"[-Infinity]", "column"),
        (b"1e400", "infinity"),
        (b"01", "leading zero"),
        (b'"\\ud800"', "surrogate"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        (b'"\xc0\xaf"', "UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "UTF-16"),
        ('{"a": 1}'.encode("utf-16-be"), "UTF-16"),
        (b"{}{}", "column"),
        (b"[1,]", "trailing comma"),
    ],
)
def test_what_is_no_json_is_refused_with_where_it_ends(body: bytes, reason: str) -> None:
    error = refused(body)
    assert error.status == 400
    assert reason in error.reason


@pytest.mark.parametrize(
    ("body", "values"),
    [
        (b"\xef\xbb\xbf{}", [{}]),  # RFC 8259, 8.1: a byte order mark may be passed over
        (b'{"a": 1, "a": 2}', [{"a": 2}]),  # section 4: names should be unique; the bytes stay
        (b"12345678901234567890123", [1.2345678901234568e22]),  # section 6: the bytes keep what a double cannot
        (b'"\\u0000"', ["\0"]),
        (b"null", [None]),
        (b"[[1], []]", [[1], []]),
    ],
)
def test_what_rfc_8259_leaves_open_is_settled(body: bytes, values: list[object]) -> None:
    posted = decode(body, "application/json", LIMITS)
    assert posted.rows == values
    assert posted.values.strip(b"[] ") == body.removeprefix(b"\xef\xbb\xbf").strip(b"[] ")


def test_a_line_that_is_no_value_of_its_own_is_refused() -> None:
    """Joined, these three lines would be three values: each is looked at alone."""
    error = refused(b"1,2\n[3\n4]", LINES)
    assert error.status == 400
    assert "in line 1" in error.reason


@pytest.mark.parametrize(
    ("body", "kind", "reason"),
    [
        (b'"' + b"x" * 10_000 + b'"', None, "over 10000 bytes"),
        (b"[" + b"1," * 20 + b"1]", None, "more than 20 elements"),
        (b"1\n" * 21, LINES, "more than 20 lines"),
        (b'{"a":[' + b"[]," * 200 + b"1]}", None, "more than 200 objects and arrays"),
        (b"a=1&" * 11, FORM, "more than 10 fields"),
        (b"a=" + b"x" * 2_000, FORM, "over 2000 bytes"),
    ],
)
def test_what_is_too_much_is_413(body: bytes, kind: str | None, reason: str) -> None:
    error = refused(body, kind)
    assert error.status == 413
    assert reason in error.reason


def test_brackets_in_texts_are_no_containers() -> None:
    """Code in a text is not counted as objects and arrays."""
    assert decode(orjson.dumps({"code": '[{"\\' * 400}), None, LIMITS).rows


def test_depth_is_counted_within_a_row() -> None:
    assert decode(b"[" * 31 + b"]" * 31, None, LIMITS).rows
    assert "nested deeper than 30" in refused(b"[" * 32 + b"]" * 32).reason


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data", "image/png", "json", "application/xml"])
def test_other_types_are_415_with_what_to_send(kind: str) -> None:
    error = refused(b"{}", kind)
    assert error.status == 415
    assert "application/json" in error.reason


def test_a_form_may_be_in_an_older_encoding() -> None:
    assert decode(b"n=%e9", f"{FORM}; charset=windows-1252", LIMITS).rows == [{"n": "é"}]
    assert refused(b"n=%e9", FORM).status == 400
    assert refused(b"n=1", f"{FORM}; charset=utf-7").status == 415
    assert refused(b"no form", FORM).status == 400


def test_json_that_is_called_a_form_is_json() -> None:
    """`curl -d '{"a": 1}'` says form; a form would have its brackets in percent-encoding."""
    assert decode(b' {"a": "b&c=d"}', FORM, LIMITS).rows == [{"a": "b&c=d"}]
    assert decode(b"[1, 2]", FORM, LIMITS).rows == [1, 2]
    assert refused(b"{a}", FORM).status == 400


def bare_deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(data) + deflater.flush()


PACKERS = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", bare_deflate),
    ("zstd", zstd.compress),
]


@pytest.mark.parametrize(("coding", "pack"), PACKERS)
def test_a_compressed_body_is_the_body(coding: str, pack: object) -> None:
    body = b'{"a": "' + b"x" * 5_000 + b'"}'
    packed = pack(body)  # type: ignore[operator]
    assert inflate(packed, coding.upper(), LIMITS) == body
    with pytest.raises(RefusedError, match="ends too early"):
        inflate(packed[:-4], coding, LIMITS)
    with pytest.raises(RefusedError) as caught:
        inflate(pack(b"x" * 10_001), coding, LIMITS)  # type: ignore[operator]
    assert caught.value.status == 413


def test_a_compressed_body_may_have_some_parts() -> None:
    """RFC 1952, 2.2: members follow one another."""
    assert inflate(gzip.compress(b"[1,") + gzip.compress(b"2]"), "gzip", LIMITS) == b"[1,2]"
    with pytest.raises(RefusedError, match="more than 100 parts"):
        inflate(gzip.compress(b"") * 101, "gzip", LIMITS)


def test_a_window_of_zstd_is_bounded() -> None:
    """A frame may ask its reader for a gigabyte before it gives a byte."""
    options = {zstd.CompressionParameter.window_log: 27, zstd.CompressionParameter.enable_long_distance_matching: 1}
    packer = zstd.ZstdCompressor(options=options)
    wide = packer.compress(b"x" * 100, mode=zstd.ZstdCompressor.FLUSH_BLOCK) + packer.flush()
    with pytest.raises(RefusedError) as caught:
        inflate(wide, "zstd", LIMITS)
    assert caught.value.status == 400


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "compress", "x" * 100])
def test_an_unknown_coding_is_415_with_those_that_are_known(coding: str) -> None:
    """RFC 9110, 15.5.16."""
    with pytest.raises(RefusedError) as caught:
        inflate(b"{}", coding, LIMITS)
    assert caught.value.status == 415
    assert caught.value.headers == {"Accept-Encoding": "gzip, deflate, zstd"}
    assert inflate(b"{}", "identity", LIMITS) == b"{}"
