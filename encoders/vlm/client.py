"""Chat completions over HTTP: several at a time, each within its time, repeated where that can help, all of it counted.

The requests run on an event loop in a thread of their own, so that whoever asks may be in any thread, with or without a
loop; a request that is taking too long is truly cut off.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp

from encoders.errors import (
    EncoderClosed,
    VlmAnswerInvalid,
    VlmError,
    VlmOverloaded,
    VlmRefused,
    VlmRejected,
    VlmTimeout,
    VlmUnauthorised,
    VlmUnreachable,
)
from encoders.vlm.address import Address, Key
from encoders.vlm.counts import VlmCounts
from encoders.vlm.messages import Answer, read_answer
from encoders.vlm.options import VlmOptions

__all__ = ["ChatClient", "seconds_to_wait"]

_MOST_BYTES = 4 << 20  # of an answer: a caption takes a few hundred
_SAID = 200  # characters of a server's own words that are passed on
_HOPELESS = 3  # requests that each fail for a reason of their own, with none answered: the others will, too
_OF_ONE = {400, 413, 415, 422}  # about this request's own content
_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}


class _TryAgain(Exception):
    """A failure that may be over soon; ``wait_seconds`` is what the server asked for."""

    def __init__(self, error: VlmError, wait_seconds: float | None = None) -> None:
        super().__init__(str(error))
        self.error, self.wait_seconds = error, wait_seconds


class ChatClient:
    """Asks one model at one address; close it."""

    def __init__(self, address: Address, key: Key, options: VlmOptions) -> None:
        self._address, self._key, self._options = address, key, options
        self._url = f"{address.url}/chat/completions"
        self._counts = VlmCounts()
        self._chance = random.Random()
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._session: aiohttp.ClientSession | None = None
        self._proxy: str | None = None
        self._slots = asyncio.Semaphore(options.concurrency)
        self._closed = False

    @property
    def counts(self) -> VlmCounts:
        """As they are now."""
        return replace(self._counts)

    def ask(self, bodies: Sequence[Mapping[str, Any]]) -> tuple[list[Answer | None], VlmError | None]:
        """The answer to each request, ``None`` where there is none; and what the first one failed with that failed for
        good.

        Where that one says that the others would meet the same, no more are sent; what is on its way is waited for once
        more, since it is paid for.

        Raises:
            EncoderClosed.
            VlmUnreachable: the environment's proxy cannot be gone through.
        """
        if not bodies:
            return [], None
        loop = self._running()
        future = asyncio.run_coroutine_threadsafe(self._ask_all(bodies), loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cut off what is being asked. May be called twice."""
        with self._starting:
            self._closed = True
            loop, thread, session = self._loop, self._thread, self._session
            self._loop = self._thread = self._session = None
        if loop is None or thread is None:
            return

        async def end() -> None:
            asked = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            if session is not None:
                await session.close()

        asyncio.run_coroutine_threadsafe(end(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._closed:
                raise EncoderClosed(f"the captioner {self._address.name} was closed")
            if self._loop is None:
                self._proxy = _proxy_for(self._url)
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="longreel-vlm", daemon=True)
                self._thread.start()
                self._session = asyncio.run_coroutine_threadsafe(self._connect(), self._loop).result()
            return self._loop

    async def _connect(self) -> aiohttp.ClientSession:
        headers = {"Authorization": f"Bearer {self._key.text}"} if self._key.text else {}
        return aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=self._options.timeout_seconds),
            trust_env=False,  # it would take a password from ~/.netrc as well, in place of the key or of none
        )

    async def _ask_all(self, bodies: Sequence[Mapping[str, Any]]) -> tuple[list[Answer | None], VlmError | None]:
        over = asyncio.Event()
        failed: list[VlmError] = []
        answered = 0

        async def one(body: Mapping[str, Any]) -> Answer | None:
            nonlocal answered
            try:
                answer = await self._ask_one(body, over)
            except VlmError as error:
                failed.append(error)
                of_one = isinstance(error, VlmRefused | VlmAnswerInvalid)
                if not of_one or (not answered and len(failed) >= _HOPELESS):
                    over.set()
                return None
            answered += answer is not None
            return answer

        tasks = [asyncio.ensure_future(one(body)) for body in bodies]
        try:
            answers = list(await asyncio.gather(*tasks))
        except asyncio.CancelledError:
            if self._closed:
                raise EncoderClosed(f"the captioner {self._address.name} was closed while it was asked") from None
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return answers, failed[0] if failed else None

    async def _ask_one(self, body: Mapping[str, Any], over: asyncio.Event) -> Answer | None:
        """``None``: it was ``over`` before this one was sent."""
        counts, most = self._counts, self._options.retries
        payload = json.dumps(body).encode()
        async with self._slots:
            if over.is_set():
                return None
            for retry in range(most + 1):
                counts.requests += 1
                counts.retries += retry > 0
                counts.sent_bytes += len(payload)
                began = time.monotonic()
                try:
                    return await self._once(payload)
                except _TryAgain as again:
                    error, asked = again.error, again.wait_seconds
                except VlmError:
                    counts.failures += 1
                    raise
                finally:
                    counts.seconds += time.monotonic() - began
                if retry == most or (asked is not None and asked > self._options.most_wait_seconds) or over.is_set():
                    break
                wait = self._pause(retry) if asked is None else asked
                counts.waited_seconds += wait
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(over.wait(), wait)
                    break
        counts.failures += 1
        tries = "tried once" if retry == 0 else f"tried {retry + 1} times"
        late = "" if asked is None else f"; it asks to be left alone for {asked:g} s"
        raise type(error)(f"{error} ({tries}{late})")

    def _pause(self, retry: int) -> float:
        """Half of it is by chance, so that many that were refused at once do not all come back at once."""
        longest = min(self._options.first_wait_seconds * 2.0**retry, self._options.most_wait_seconds)
        return longest * (0.5 + 0.5 * self._chance.random())

    async def _once(self, payload: bytes) -> Answer:
        session = self._session
        assert session is not None
        try:
            async with session.post(
                self._url,
                data=payload,
                headers={"Content-Type": "application/json"},
                allow_redirects=False,
                proxy=self._proxy,
            ) as response:
                content = await self._content(response)
                status, headers = response.status, response.headers
        except asyncio.TimeoutError as error:
            late = VlmTimeout(f"{self._url}: no whole answer within {self._options.timeout_seconds:g} s")
            raise _TryAgain(late) from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise VlmUnreachable(f"{self._url}: its certificate is not trusted: {self._said(error)}") from error
        except aiohttp.ClientConnectorError as error:
            raise _TryAgain(VlmUnreachable(f"{self._url}: no connection: {self._said(error.os_error)}")) from error
        except (aiohttp.ClientError, OSError) as error:
            raise _TryAgain(VlmUnreachable(f"{self._url}: {type(error).__name__}: {self._said(error)}")) from error
        if status != 200:
            raise self._failure(status, headers, content)
        try:
            answer = json.loads(content)
            if not isinstance(answer, dict):
                raise VlmAnswerInvalid(f"{self._url}: the answer is no JSON object: {self._said(content)}")
            self._count_tokens(answer)
            found = read_answer(answer, self._options)
        except (ValueError, RecursionError) as error:  # of json, and of text that is not UTF-8
            broken = VlmAnswerInvalid(f"{self._url}: the answer is no JSON: {self._said(content)}")
            raise _TryAgain(broken) from error
        except VlmAnswerInvalid as error:
            raise _TryAgain(VlmAnswerInvalid(f"{self._url}: {self._key.hide(str(error))}")) from error
        self._counts.captions += 1
        self._counts.empty += not found.text
        self._counts.cut += found.cut
        return found

    def _count_tokens(self, answer: Mapping[str, Any]) -> None:
        usage = answer.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        numbers = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        given, made = (number if type(number) is int and number >= 0 else None for number in numbers)
        self._counts.tokens_in += given or 0
        self._counts.tokens_out += made or 0
        self._counts.without_usage += given is None or made is None

    async def _content(self, response: aiohttp.ClientResponse) -> bytes:
        content = bytearray()
        async for part in response.content.iter_any():
            content += part
            if len(content) > _MOST_BYTES:
                raise VlmAnswerInvalid(f"{self._url}: the answer is longer than {_MOST_BYTES >> 20} MiB")
        return bytes(content)

    def _failure(self, status: int, headers: Mapping[str, str], content: bytes) -> Exception:
        """What an answer that is not 200 means."""
        said, code = _words(content)
        text = f"{self._url}: status {status}" + (f": {self._said(said)}" if said else "")
        if status in (401, 403):
            return VlmUnauthorised(f"{text} ({self._key.about})")
        if code == "insufficient_quota":  # has the status of "too many requests", and does not pass
            return VlmRejected(text)
        if status in _AGAIN:
            return _TryAgain(VlmOverloaded(text), seconds_to_wait(headers))
        if status == 404:
            text += f" (is there a model {self._address.model!r}, and does the address end as in http://HOST:PORT/v1?)"
        elif 300 <= status < 400:
            where = self._key.hide(headers.get("Location", "nowhere"))
            text += f" (it points to {where.partition('?')[0]}; give that address)"
        return VlmRefused(text) if status in _OF_ONE else VlmRejected(text)

    def _said(self, words: object) -> str:
        """Somebody else's words, short, in one line, and without a secret."""
        text = words.decode(errors="replace") if isinstance(words, bytes) else str(words)
        text = " ".join(self._key.hide(re.sub(r"<[^>]*>", " ", text)).split())
        return text if len(text) <= _SAID else text[:_SAID] + "..."


def seconds_to_wait(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """What a server asks to wait, by Retry-After in seconds or as a date; ``None``: it does not say."""
    for name, unit in (("retry-after-ms", 1e-3), ("Retry-After", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - (time.time() if now is None else now)
            except ValueError:
                continue
        if seconds == seconds:  # no NaN
            return max(0.0, seconds)
    return None


def _proxy_for(url: str) -> str | None:
    """The proxy that the environment names for an address.

    Raises:
        VlmUnreachable: it is of a kind that cannot be gone through.
    """
    parts = urlsplit(url)
    proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
    if proxy and urlsplit(proxy).scheme not in ("http", "https"):
        kind = urlsplit(proxy).scheme
        raise VlmUnreachable(f"{url}: the environment's {parts.scheme}_proxy is {kind}://...; allowed: http, https")
    return proxy or None


def _words(content: bytes) -> tuple[str, str]:
    """What a server says of a failure, and its code for it: as OpenAI, vLLM, llama.cpp and Ollama put it."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return content.decode(errors="replace"), ""
    if not isinstance(answer, dict):
        return str(answer), ""
    error = answer.get("error", answer)
    if not isinstance(error, dict):
        return str(error), ""
    said = error.get("message") or error.get("detail") or ""
    return str(said), str(error.get("code") or "")
