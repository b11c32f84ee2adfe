"""URIs without their secrets: what may be logged, stored and shown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from pipeline.errors import SourceError

__all__ = ["is_remote", "redact", "redact_text", "redact_word", "remote_schemes", "shown_as"]

remote_schemes = ("http", "https", "s3")

# Query parameters that grant access. Matched on the whole name, case-insensitively, or by the prefixes below.
# fmt: off
_SECRET_NAMES = frozenset(
    (
        "access_token", "accesskeyid", "apikey", "api_key", "auth", "auth_key", "authkey", "authorization",
        "awsaccesskeyid", "credential", "credentials", "googleaccessid", "hdnea", "hdntl", "hdnts", "hmac", "id_token",
        "jwt", "key-pair-id", "key_pair_id", "loginpas", "pass", "passphrase", "passwd", "password", "pw", "pwd",
        "secret", "sessionid", "sig", "sign", "signature", "stream_key", "streamkey", "token", "wmsauthsign",
    )
)
# These belong to a signature where there is one (Azure, CloudFront, S3). Elsewhere they may say which video is meant,
# as in ?key=a1: without them two videos would be one.
_SIGNED_NAMES = frozenset(
    (
        "code", "expires", "key", "policy", "se", "session", "sip", "ske", "skoid", "sks", "skt", "sktid",
        "skv", "sp", "spr", "sr", "st", "sv", "x-id",
    )
)
_SIGNATURES = frozenset(("hmac", "sig", "sign"))
# fmt: on
# Of a stream they grant access: which one is meant stands in its path.
_STREAM_SECRETS = frozenset(("code", "key", "session"))
_SECRET_PREFIXES = ("x-amz-", "x-goog-", "x-oss-", "x-cos-", "x-ms-")
_SECRET_PARTS = ("token", "secret", "passw", "signature", "credential", "apikey")
# Cheap cameras want the password in the path: /user=admin&password=x&channel=1, or with _ between them.
_SECRET_IN_PATH = re.compile(
    r"\b((?:[a-z]+_)??(?:password|passwd|pwd|token|hdnts|hdntl))=((?:(?!_[a-z]+=)[^&/;?])+)", re.IGNORECASE
)
# What of an SRT stream id says which stream is meant: its resource, host, mode and type.
_STREAMID_PUBLIC = frozenset("rhmt")
_URL_IN_TEXT = re.compile(r"\b(?:https?|s3|ftp|rtspu?s?|rtmp[est]*|srt|udp|rtp|tcp|tls)://[^\s'\"<>]+", re.IGNORECASE)

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"
_ADDRESS_TO_END = re.compile(f"{_SCHEME}.*", re.DOTALL)
_ADDRESS_TO_NEXT = re.compile(f"{_SCHEME}(?:(?!{_SCHEME}).)*", re.DOTALL)


def is_remote(uri: str) -> bool:
    """Whether ``uri`` names something on a server (``http://``, ``https://``, ``s3://``)."""
    return uri.partition("://")[0].lower() in remote_schemes and "://" in uri


def _query_parts(query: str, *, stream: bool = False) -> Iterator[tuple[str, bool]]:
    """Each ``name=value`` of a query, and whether it is secret.

    Args:
        stream: the address is of a live stream.
    """
    pairs = [pair for pair in query.split("&") if pair]
    names = [unquote(pair.partition("=")[0]).lower() for pair in pairs]
    signed = any(name in _SIGNATURES or "signature" in name for name in names)
    for pair, name in zip(pairs, names, strict=True):
        yield (
            pair,
            name in _SECRET_NAMES
            or name.startswith(_SECRET_PREFIXES)
            or any(part in name for part in _SECRET_PARTS)
            or (signed and name in _SIGNED_NAMES)
            or (stream and name in _STREAM_SECRETS),
        )


def _split(uri: str) -> SplitResult:
    """An SRT stream id, as its documentation writes it (#!::r=name), is no fragment."""
    return urlsplit(uri.replace("#", "%23") if uri[:6].lower() == "srt://" else uri)


def redact(uri: str, *, stream: bool = False) -> str:
    """``uri`` without user and password, without signed or secret query parameters and without its fragment.

    Other parameters stay, so two addresses that name different things stay different. A local path comes back as it is.

    Args:
        stream: the address is of a live stream, of whose parameters more are secret. Those that are no files' (RTSP and
            the like) are known by their scheme.
    """
    if "://" not in uri:
        return uri
    try:
        parts = _split(uri)
    except ValueError:  # brackets where none may be: no telling what is secret in it
        return uri.partition("://")[0] + "://***"
    if _hides_login(parts):
        _, at, rest = uri.rpartition("@")
        return f"{parts.scheme}://***{at}{re.split('[?#]', rest)[0] if at else ''}"
    host = parts.netloc.rpartition("@")[2]
    if parts.scheme.lower() == "s3":  # '?' and '#' are allowed in keys; s3fs takes them literally
        return uri if "@" not in parts.netloc else uri.replace(parts.netloc, host, 1)
    stream = stream or parts.scheme.lower() not in remote_schemes
    kept = [_public(pair) for pair, secret in _query_parts(parts.query, stream=stream) if not secret]
    path, query = (_SECRET_IN_PATH.sub(r"\1=", text) for text in (parts.path, "&".join(kept)))
    return urlunsplit((parts.scheme, host, path, query, ""))


def _public(pair: str) -> str:
    """A ``name=value`` without what of its value is secret: users and passwords in the stream ids of SRT."""
    name, _, value = pair.partition("=")
    if name.lower() != "streamid":
        return pair
    words = unquote(value)
    if words.startswith("#!::"):
        known = [word for word in words[4:].split(",") if word.partition("=")[0] in _STREAMID_PUBLIC]
        return f"{name}={quote('#!::', safe='!:')}{quote(','.join(known), safe=',=/:')}"
    parts = words.split(":")
    if parts[0] in ("publish", "read", "request") and len(parts) > 2:  # MediaMTX's read:path:user:password
        return f"{name}={quote(':'.join(parts[:2]), safe='/:')}"
    return pair


def _hides_login(parts: SplitResult) -> bool:
    """A password with ``/``, ``?`` or ``#`` in it that is not escaped ends the host too early: what follows the colon
    is no port, and the rest of the password seems to be a path.
    """
    try:
        _ = parts.port
    except ValueError:
        return True
    # A player of streams that reads on to the last '@' would find a login here.
    behind = f"{parts.path}?{parts.query}#{parts.fragment}"
    return (
        parts.scheme.lower() not in remote_schemes and ":" in parts.netloc and "@" in behind and "@" not in parts.netloc
    )


def redact_text(text: str, *uris: str) -> str:
    """A message with every address in it redacted, and every secret part of ``uris`` taken out wherever it stands."""
    for uri in uris:
        for secret in _secrets(uri):
            text = text.replace(secret, "***")
    return _URL_IN_TEXT.sub(lambda match: redact(match.group()), text)


def redact_word(word: str) -> str:
    """A word of a command line, such as ``--set key=https://...``, with every address in it redacted.

    Unlike in running text, an address here may hold blanks and quotes: it goes on to the word's end. One that stands
    after another (a list, or a parameter of the first) is redacted by itself as well.
    """
    whole = _ADDRESS_TO_END.sub(lambda match: redact(match.group()), word, count=1)
    return _ADDRESS_TO_NEXT.sub(lambda match: redact(match.group()), whole)


def _secrets(uri: str) -> list[str]:
    if "://" not in uri:
        return []
    try:
        parts = _split(uri)
    except ValueError:
        return [uri.partition("://")[2]]
    user = parts.netloc.rpartition("@")[0]
    found = [piece for piece in (user, user.partition(":")[2]) if piece]
    found += [unquote(piece) for piece in found]
    if _hides_login(parts):
        found.append(uri.partition("://")[2])
    found += [match.group(2) for match in _SECRET_IN_PATH.finditer(parts.path) if len(match.group(2)) >= 6]
    stream = parts.scheme.lower() not in remote_schemes
    for pair, secret in _query_parts(parts.query, stream=stream):
        value = pair.partition("=")[2]
        if len(value) >= 6 and (secret or _public(pair) != pair):
            found += [value, unquote(value), quote(unquote(value), safe="")]
    return sorted(set(found), key=len, reverse=True)


@contextmanager
def shown_as(path: str, uri: str) -> Iterator[None]:
    """Within it, source errors name ``uri`` instead of the local copy at ``path``."""
    try:
        yield
    except SourceError as error:
        if path == uri:
            raise
        raise type(error)(str(error).replace(path, uri)) from error
