"""Who may look: where the page is, the token, and what a request tells of whom it comes from."""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from clip4str.core.errors import UsageError

VARIABLE = "CLIP4STR_VIEW_TOKEN"
_TOKEN = re.compile(r"[A-Za-z0-9._~-]{16,200}")


def given_token(given: str | None) -> str | None:
    """It, or the environment's. Raises UsageError for one that can be guessed, or that no cookie can hold."""
    token = given if given is not None else os.environ.get(VARIABLE) or None
    if token is not None and not _TOKEN.fullmatch(token):  # not shown: it is a secret
        raise UsageError("the page's token is 16 to 200 of A-Z a-z 0-9 . _ ~ -")
    return token


def is_loopback(host: str | None) -> bool:
    """Is it a name or address of this machine that others cannot reach?"""
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower().rstrip(".") == "localhost"


class Access:
    """token: None where none is asked for. loopback: the page is this machine's alone; then a request must name it so,
    as a stranger's page can give its own name this machine's address (DNS rebinding). Elsewhere the token keeps such
    pages out: the browser has none for that name."""

    def __init__(self, token: str | None, loopback: bool, port: int) -> None:
        self.token, self.loopback, self.cookie = token, loopback, f"clip4str-view-{port}"

    def right_host(self, host: str | None) -> bool:
        if not self.loopback:
            return True
        try:
            return is_loopback(urlsplit(f"//{host or ''}").hostname)
        except ValueError:
            return False

    @staticmethod
    def from_elsewhere(headers: Mapping[str, str], page: bool) -> bool:
        """Did another site's page make the browser ask? Following a link to the page itself is allowed."""
        site = headers.get("Sec-Fetch-Site", "none")
        return site not in ("none", "same-origin") and not (page and headers.get("Sec-Fetch-Mode") == "navigate")

    def is_token(self, value: str) -> bool:
        return self.token is not None and hmac.compare_digest(value.encode(), self.token.encode())

    def let_in(self, cookies: str) -> bool:
        """By the cookies that a request sends."""
        if self.token is None:
            return True
        try:
            found = SimpleCookie(cookies).get(self.cookie)
        except CookieError:
            return False
        return found is not None and self.is_token(found.value)

    def set_cookie(self) -> str:
        """A cookie that no script sees and no other site's link sends."""
        return f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/"
