"""Requests, good and bad, and what chance makes of them."""

from typing import Final

from tests.http_server.test_guard import ANSWERED, REFUSED

GET: Final = (
    b"GET /health/ready HTTP/1.1\r\nHost: 127.0.0.1:7233\r\nUser-Agent: curl/8.5.0\r\n"
    b"Accept: */*\r\n\r\n"
)
POST_HEAD: Final = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:7233\r\n"
    b"Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nAccept: application/json\r\n"
    b"Content-Type: application/json\r\nUser-Agent: OpenAI/Python 3.1.0\r\n"
    b"X-Stainless-Lang: python\r\nX-Stainless-OS: Linux\r\nX-Stainless-Arch: x64\r\n"
    b"X-Stainless-Runtime: CPython\r\nAuthorization: Bearer 0123456789abcdef\r\n"
)
POST: Final = POST_HEAD + b"Content-Length: 11\r\n\r\n" + b'{"model":1}'

_HOST: Final = b"Host: rbee\r\n"
_PUT: Final = b"PUT /url HTTP/1.1\r\n" + _HOST
_CHUNKED: Final = b"POST /url HTTP/1.1\r\n" + _HOST + b"Transfer-Encoding: chunked\r\n\r\n"
_BEHIND: Final = b"GET /behind HTTP/1.1\r\n" + _HOST + b"\r\n"

# What other servers and parsers have been fooled with: the kinds are those of the public tests of
# llhttp (test/request) and of h11 (h11/tests/test_io.py), and those of request smuggling.
CURIOUS: Final = {
    "another protocol": b"GET /a ICE/1.0\r\n" + _HOST + b"\r\n",
    "a misspelt protocol": b"GET /a IHTTP/1.1\r\n" + _HOST + b"\r\n",
    "a version of two digits": b"GET /a HTTP/1.11\r\n" + _HOST + b"\r\n",
    "HTTP/5.6": b"GET /a HTTP/5.6\r\n" + _HOST + b"\r\n",
    "HTTP/1.0": b"GET /a HTTP/1.0\r\n" + _HOST + b"\r\n",
    "a method of RTSP": b"ANNOUNCE /a HTTP/1.1\r\n" + _HOST + b"\r\n",
    "a method of nobody": b"MKCOLA /a HTTP/1.1\r\n" + _HOST + b"\r\n",
    "HEAD": b"HEAD /a HTTP/1.1\r\n" + _HOST + b"\r\n",
    "OPTIONS of all": b"OPTIONS * HTTP/1.1\r\n" + _HOST + b"\r\n",
    "two spaces before the target": b"GET  /a HTTP/1.1\r\n" + _HOST + b"\r\n",
    "two spaces behind the target": b"GET /a  HTTP/1.1\r\n" + _HOST + b"\r\n",
    "a space at the line's end": b"GET /a HTTP/1.1 \r\n" + _HOST + b"\r\n",
    "a tab for a space": b"GET\t/a HTTP/1.1\r\n" + _HOST + b"\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\n" + _HOST + b"\r\n",
    "a target with quotes": b'GET /a"b"?c="d" HTTP/1.1\r\n' + _HOST + b"\r\n",
    "a target with a fragment": b"GET /a?b#c HTTP/1.1\r\n" + _HOST + b"\r\n",
    "a target in UTF-8": "GET /δ HTTP/1.1\r\n".encode() + _HOST + b"\r\n",
    "a target with escapes": b"GET /%ce%b4%2F%00%zz?%41 HTTP/1.1\r\n" + _HOST + b"\r\n",
    "a target with DEL": b"GET /a\x7f HTTP/1.1\r\n" + _HOST + b"\r\n",
    "a target with two slashes": b"GET //other/a HTTP/1.1\r\n" + _HOST + b"\r\n",
    "a target with a password": b"GET http://a:b@c:1/d HTTP/1.1\r\n" + _HOST + b"\r\n",
    "a target that is an authority": b"GET rbee:80 HTTP/1.1\r\n" + _HOST + b"\r\n",
    "a name with an at sign": _PUT + b"Fo@: bar\r\n\r\n",
    "a name with a control character": _PUT + b"Fo\x01o: bar\r\n\r\n",
    "a name in Latin-1": _PUT + b"F\xf6o: bar\r\n\r\n",
    "a name with a space": _PUT + b"Foo bar: baz\r\n\r\n",
    "a name with a tab behind": _PUT + b"Foo\t: bar\r\n\r\n",
    "a name with a bracket": _PUT + b"Foo[]: bar\r\n\r\n",
    "no name": _PUT + b": bar\r\n\r\n",
    "a name of all token characters": _PUT + b"!#$%&'*+-.^_`|~09azAZ: bar\r\n\r\n",
    "a value in Latin-1": _PUT + b"Foo: b\xe4r\r\n\r\n",
    "a value with a control character": _PUT + b"Foo: b\x01r\r\n\r\n",
    "a value with DEL": _PUT + b"Foo: b\x7fr\r\n\r\n",
    "a value with a form feed": _PUT + b"Foo: b\x0cr\r\n\r\n",
    "a value that is a vertical tab": _PUT + b"Foo: \x0b\r\n\r\n",
    "a value with tabs around": _PUT + b"Foo: \t b\tr \t\r\n\r\n",
    "empty values": _PUT + b"Foo:\r\nBar: \r\nBaz:\t \r\nQuux: a\r\n\r\n",
    "a folded name": _PUT + b"Foo\r\n : bar\r\n\r\n",
    "a folded first header": b"GET /a HTTP/1.1\r\n Host: rbee\r\n\r\n",
    "a folded length": _PUT + b"Foo: bar\r\n Content-Length: 39\r\n\r\n" + _BEHIND,
    "a folded Connection": _PUT + b"Connection: keep-alive,\r\n close\r\n\r\n",
    "a CR between headers": _PUT + b"Foo: 1\rBar: 2\r\n\r\n",
    "a CR for a hyphen": _PUT + b"Content\rLength: 3\r\n\r\nabc",
    "a CR that hides an encoding": _PUT + b"x:\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an LF that hides an encoding": _PUT + b"x:x\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "an LF that hides a length": _PUT + b"x: x\nContent-Length: 23\r\n\r\n" + _BEHIND,
    "a CR that ends the head": _PUT + b"Content-Length: 3\r\n\rabc",
    "a CR that hides a request": _PUT + b"\rZGET /evil: HTTP/1.1\r\n" + _HOST + b"\r\n",
    "an LF that ends the head": _PUT + b"Content-Length: 3\r\n\nabc",
    "leading zeros in a length": _PUT + b"Content-Length: 003\r\n\r\nabc",
    "a length in odd case": _PUT + b"cONTENT-lENGTH: 3\r\n\r\nabc",
    "a length with blanks around": _PUT + b"Content-Length: \t 3 \t\r\n\r\nabc",
    "a length with a blank inside": _PUT + b"Content-Length: 1 3\r\n\r\nabc",
    "a length behind a space": _PUT + b"Content-Length : 3\r\n\r\nabc",
    "a length without colon": _PUT + b"Content-Length\r\n\r\nabc",
    "a length with an underscore": _PUT + b"Content_Length: 3\r\n\r\nabc",
    "a length of 1_0": _PUT + b"Content-Length: 1_0\r\n\r\n0123456789",
    "a length in Arabic digits": _PUT + "Content-Length: ٣\r\n\r\nabc".encode(),
    "a length over 64 bits": _PUT + b"Content-Length: 18446744073709551619\r\n\r\nabc",
    "a length of 18 digits": _PUT + b"Content-Length: 999999999999999999\r\n\r\nabc",
    "a length of 3.0": _PUT + b"Content-Length: 3.0\r\n\r\nabc",
    "a length for GET": b"GET /a HTTP/1.1\r\n" + _HOST + b"Content-Length: 3\r\n\r\nabc",
    "length and identity": _PUT + b"Content-Length: 1\r\nTransfer-Encoding: identity\r\n\r\na",
    "an empty encoding": _PUT + b"Transfer-Encoding:\r\nContent-Length: 3\r\n\r\nabc",
    "an encoding of pigeons": _PUT + b"Transfer-Encoding: pigeons\r\n\r\n",
    "an encoding with a blank in front": _PUT + b" Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a proxy's encoding": _PUT + b"TE: chunked\r\n\r\n",
    "an encoding in a trailer": _CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a chunk size with 0x": _CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk size with a plus": _CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n",
    "a chunk size with a blank": _CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
    "a chunk size over 64 bits": _CHUNKED + b"10000000000000003\r\nabc\r\n0\r\n\r\n",
    "a chunk size that ends in CR CR": _CHUNKED + b"3\r\r;abcd\r\n0\r\n\r\n",
    "a chunk without line end": _CHUNKED + b"3\r\nabc0\r\n\r\n",
    "a chunk extension": _CHUNKED + b'3;a="b\\"c"\r\nabc\r\n0\r\n\r\n',
    "no last chunk": _CHUNKED + b"3\r\nabc\r\n\r\n",
    "an expectation": _PUT + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    "an odd expectation": _PUT + b"Expect: pigeons\r\nContent-Length: 3\r\n\r\nabc",
    "an upgrade to something": _PUT + b"Connection: upgrade\r\nUpgrade: ws\r\n\r\n" + _BEHIND,
    "an upgrade with a body": _PUT + b"Upgrade: x\r\nContent-Length: 3\r\n\r\nabc",
    "an upgrade without Upgrade": _PUT + b"Connection: upgrade\r\n\r\n" + _BEHIND,
    "close": _PUT + b"Connection: close\r\n\r\n" + _BEHIND,
    "close in a list": _PUT + b"Connection: Keep-Alive ,\tCLOSE\t, x\r\n\r\n" + _BEHIND,
    "close in a second header": _PUT + b"Connection: x\r\nConnection: close\r\n\r\n" + _BEHIND,
    "something like close": _PUT + b"Connection: closed, not-close\r\n\r\n" + _BEHIND,
    "a proxy's close": _PUT + b"Proxy-Connection: close\r\n\r\n" + _BEHIND,
    "an empty Connection": _PUT + b"Connection:\r\n\r\n" + _BEHIND,
    "an empty host": b"GET /a HTTP/1.1\r\nHost:\r\n\r\n",
    "a host with a path": b"GET /a HTTP/1.1\r\nHost: rbee/b?c\r\n\r\n",
    "the same host twice": b"GET /a HTTP/1.1\r\n" + _HOST + _HOST + b"\r\n",
    "a host behind a space": b"GET /a HTTP/1.1\r\nHost : rbee\r\n\r\n",
    "a line end behind a body": _PUT + b"Content-Length: 3\r\n\r\nabc\r\n" + _BEHIND,
    "half a head": GET[:-2],
    "half a body": POST[:-5],
    "three requests": GET + POST + GET,
    "a request and nonsense": POST + b"\0\0\0",
    "a body of all bytes": _PUT + b"Content-Length: 256\r\n\r\n" + bytes(range(256)),
    "a body at the limit": _PUT + b"Content-Length: 65536\r\n\r\n" + b"a" * 65536,
    "a body over the limit": _PUT + b"Content-Length: 65537\r\n\r\n" + b"a" * 65537,
}  # fmt: skip

CORPUS: Final = {
    **CURIOUS,
    **{f"refused: {name}": request for name, (_, request) in REFUSED.items()},
    **{f"answered: {name}": request for name, request in ANSWERED.items()},
    "curl": GET,
    "openai": POST,
}
