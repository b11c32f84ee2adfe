"""Where a model behind an address is, what it is called, and the key that opens it."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from encoders.errors import EncoderOptionError, UnknownModel

__all__ = ["DEFAULT_KEY_VARIABLE", "Address", "Key", "parse_address", "read_key"]

DEFAULT_KEY_VARIABLE = "OPENAI_API_KEY"

_NAME = re.compile(r"(?P<model>.+?)@(?P<url>https?://.*)", re.IGNORECASE)
_EXAMPLE = "vlm:MODEL@URL, such as vlm:qwen2.5vl:7b@http://localhost:11434/v1"


@dataclass(frozen=True)
class Address:
    """``url`` is what ``/chat/completions`` is put after: scheme, host and path, no more."""

    model: str
    url: str

    @property
    def name(self) -> str:
        return f"vlm:{self.model}@{self.url}"

    @property
    def is_private_way(self) -> bool:
        """Nobody on the way can read what is sent: it is encrypted, or does not leave this machine."""
        parts = urlsplit(self.url)
        if parts.scheme == "https":
            return True
        host = parts.hostname or ""
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


def parse_address(rest: str) -> Address:
    """The address in ``MODEL@URL``.

    Raises:
        UnknownModel: it is none; what it holds after the model is not told where it may be a password.
    """
    found = _NAME.fullmatch(rest.strip())
    if not found:
        raise UnknownModel(f"captioner 'vlm' must say which model, and where: {_EXAMPLE}")
    model, url = found["model"].strip(), found["url"]
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise UnknownModel(
            f"captioner 'vlm:{model}': the address holds a user name or a password; a key is given in an environment "
            f"variable ({DEFAULT_KEY_VARIABLE}, or the one that key_variable names)"
        )
    if parts.query or parts.fragment:
        raise UnknownModel(f"captioner 'vlm:{model}': the address must end before ? and #: {_EXAMPLE}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UnknownModel(f"captioner 'vlm:{model}': {url!r} has no such port; allowed: 0 to 65535") from error
    if not host or re.search(r"\s", url) or not model:
        raise UnknownModel(f"captioner 'vlm:{model}': {url!r} is no address; it is {_EXAMPLE}")
    shown = f"[{host}]" if ":" in host else host
    path = re.sub(r"/chat/completions/?$", "", parts.path).rstrip("/")
    return Address(model, f"{parts.scheme.lower()}://{shown}{'' if port is None else f':{port}'}{path}")


@dataclass(frozen=True)
class Key:
    """``text`` is the secret, empty where none is sent; ``about`` says in an error which one it was."""

    text: str = field(repr=False)
    about: str

    def hide(self, message: str) -> str:
        """A message of somebody else's without the key, and without passwords of addresses."""
        if self.text:
            message = message.replace(self.text, "***")
        return re.sub(r"//[^/\s@]*@", "//***@", message)


def read_key(address: Address, variable: str | None, environment: Mapping[str, str] | None = None) -> Key:
    """The key for an address; ``variable`` is :attr:`encoders.vlm.options.VlmOptions.key_variable`.

    Raises:
        EncoderOptionError: a variable that was named is not there, or holds what can be no key.
    """
    environment = os.environ if environment is None else environment
    if variable == "":
        return Key("", "no key was sent, as key_variable is empty")
    name = variable or DEFAULT_KEY_VARIABLE
    text = environment.get(name, "").strip()
    if not text:
        if variable:
            raise EncoderOptionError(f"key_variable is {variable!r}, but there is no such environment variable")
        return Key("", f"no key was sent, as {name} is not set")
    if not variable and not address.is_private_way:
        return Key("", f"the key in {name} was not sent unencrypted; use https, or name it in key_variable")
    if not (text.isascii() and text.isprintable()):
        raise EncoderOptionError(f"the environment variable {name} holds characters that no key has")
    return Key(text, f"the key was that of {name}")
