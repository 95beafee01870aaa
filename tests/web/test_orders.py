"""What programs send over HTTP: what is no order is refused in words that name no library."""

from __future__ import annotations

import pytest

from bus.web.api_shapes import SendOrder
from bus.web.orders import BadOrder, as_place, only, read_order


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the request has no body: send a JSON object"),
        ("{", "the request is not JSON: see line 1, column 2"),
        ("[]", "the request must be an object, not a list"),
        ('{"to":"ledger","body":1} x', "the request is not JSON: see line 1, column 26"),
        ('{"to":"ledger","body":NaN}', "the request is not JSON: NaN is no JSON value"),
        ('{"to":"ledger","body":[1e999]}', "'body' has a number that is out of range"),
        ('{"to":"ledger","body":' + "9" * 400 + "}", "'body' has a number that is out of range"),
        ('{"to":"ledger","body":' + "9" * 5000 + "}", "'body' has a number that is out of range"),
        ('{"to":"ledger","body":1,"ttl":' + "9" * 5000 + "}", "Number out of range in 'ttl'"),
        (r'{"to":"ledger","body":{"\ud800":1}}', "the request has half a surrogate pair"),
        (r'{"to":"ledger","body":1,"headers":{"a":"\udc00"}}', "the request has half a surrogate pair"),
        (b'{"to":"ledger","body":"\xff"}', "'body' has bytes that are not UTF-8"),
        (b'{"to":"led\xffger","body":1}', "the request is not UTF-8, from byte 10 on"),
        ('{"to":"ledger","body":' + "[" * 200 + "]" * 200 + "}", "'body' is nested deeper than 100"),
        ('{"to":"ledger","body":' + "[" * 50_000 + "]" * 50_000 + "}", "the request is nested deeper than 100"),
        ('{"to":"ledger","body":1,"body":2}', "the name 'body' is repeated in an object"),
        ('{"to":"ledger","body":{"a":[{"b":1,"b":1}]}}', "the name 'b' is repeated in an object"),
        ('{"to":"ledger","body":1,"headers":{"a":"b","a":"b"}}', "the name 'a' is repeated in an object"),
    ],
)
def test_what_no_receiver_could_read_is_refused_in_words(text: str | bytes, words: str) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(BadOrder) as refused:
        read_order(data, SendOrder)
    assert str(refused.value).startswith(words)
    assert refused.value.code in ("bad_request", "invalid_body")


def test_an_order_is_read_as_it_was_sent() -> None:
    order = read_order('{"to":"ledger","body":{"a":[1.50,"ü"]},"ttl":5}'.encode(), SendOrder)
    assert (order.to, bytes(order.body), order.ttl) == ("ledger", '{"a":[1.50,"ü"]}'.encode(), 5.0)


def test_a_place_is_a_seq_with_or_without_its_log() -> None:
    epoch = "019ab6d0-5c1e-7f3a-9d54-0d1f6b2a7c11"
    assert as_place("after", "5") == (None, 5)
    assert as_place("after", f"{epoch}/5") == (epoch, 5)
    assert str(as_place("after", f"{epoch}/5")) == f"{epoch}/5"


def test_a_parameter_is_known_and_given_once() -> None:
    assert only([("after", "5")], ("after", "limit")) == {"after": "5"}
    for asked in ([("aftr", "5")], [("after", "5"), ("after", "6")]):
        with pytest.raises(BadOrder):
            only(asked, ("after", "limit"))
