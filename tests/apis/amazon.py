"""Login with Amazon, and the hosts of the Ads API with accounts, profiles, DSP and AMC."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode

from tests.apis.server import LocalApi, Reply, Request, exactly, require

CANARY = "CANARY9f3b"
"""In every credential of the tests: it is looked for wherever nothing secret may be."""
CLIENT_ID = "amzn1.application-oa2-client.example"
CLIENT_SECRET = f"amzn1.oa2-cs.v1.{CANARY}secret"

LWA_ERRORS: dict[str, tuple[int, str]] = {
    "invalid_grant": (400, "The refresh token is not valid"),
    "invalid_client": (401, "The client is not known"),
    "invalid_request": (400, "A parameter is missing"),
    "unsupported_grant_type": (400, "That grant type is not supported"),
    "unauthorized_client": (400, "The client may not use the grant"),
    "ServerError": (500, "Something broke"),
}


class LoginWithAmazon(LocalApi):
    """The token endpoint and the consent page.

    Attributes:
        lifetime: seconds of an access token.
        rotates: whether each refresh brings another refresh token and ends the old one.
        omits: whether an answer leaves the refresh token out.
    """

    def __init__(self, latency: float = 0.0) -> None:
        super().__init__(latency)
        self.lifetime: float = 3600
        self.rotates = False
        self.omits = False
        self.refresh_tokens: set[str] = set()
        self._codes: dict[str, dict[str, str]] = {}
        self._valid_until: dict[str, float] = {}
        self._numbers = itertools.count(1)

    def grant(self) -> str:
        """A refresh token that is good."""
        token = f"Atzr|{CANARY}r{next(self._numbers)}"
        self.refresh_tokens.add(token)
        return token

    def access(self) -> str:
        """An access token that is good."""
        token = f"Atza|{CANARY}a{next(self._numbers)}"
        self._valid_until[token] = time.monotonic() + self.lifetime
        return token

    def is_valid(self, token: str) -> bool:
        return self._valid_until.get(token, 0) > time.monotonic()

    def expire_all(self) -> None:
        """Every access token ends, whatever was promised."""
        self._valid_until.clear()

    def handle(self, request: Request) -> Reply:
        if request.endpoint == "GET /ap/oa":
            return self._consent(request)
        require(request.endpoint == "POST /auth/o2/token", "no such path", 404)
        kind = request.headers.get("content-type", "").replace(" ", "").lower()
        require(
            kind in ("application/x-www-form-urlencoded;charset=utf-8",), f"content type {kind}"
        )
        require(b"|" not in request.body, "a token is not percent-encoded")
        form = dict(parse_qsl(request.body.decode("ascii"), strict_parsing=True))
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            return self.error("invalid_client")
        if form.get("grant_type") == "refresh_token":
            exactly(form, {"grant_type", "refresh_token", "client_id", "client_secret"}, "fields")
            old = form.get("refresh_token", "")
            if old not in self.refresh_tokens:
                return self.error("invalid_grant")
            if self.rotates:
                self.refresh_tokens.discard(old)
            return self._tokens(self.grant() if self.rotates else old)
        if form.get("grant_type") == "authorization_code":
            return self._exchange(form)
        return self.error("unsupported_grant_type")

    def _consent(self, request: Request) -> Reply:
        """A person who agrees at once: the browser is sent back with a code."""
        asked = request.query
        for name in ("client_id", "scope", "response_type", "redirect_uri", "state"):
            require(bool(asked.get(name)), f"{name} is missing")
        require(asked["scope"] == "advertising::campaign_management", "another scope")
        require(asked.get("code_challenge_method") == "S256", "PKCE is expected")
        code = f"code-{CANARY}{next(self._numbers)}"
        self._codes[code] = asked
        back = urlencode({"code": code, "scope": asked["scope"], "state": asked["state"]})
        return Reply(302, {}, headers={"Location": f"{asked['redirect_uri']}?{back}"})

    def _exchange(self, form: dict[str, str]) -> Reply:
        asked = self._codes.pop(form.get("code", ""), None)
        verifier = form.get("code_verifier", "")
        digest = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest())
        if (
            asked is None
            or asked["redirect_uri"] != form.get("redirect_uri")
            or asked["code_challenge"] != digest.rstrip(b"=").decode()
        ):
            return self.error("invalid_grant")
        return self._tokens(self.grant())

    def _tokens(self, refresh_token: str) -> Reply:
        document = {
            "access_token": self.access(),
            "token_type": "bearer",
            "expires_in": int(self.lifetime),
        }
        if not self.omits:
            document["refresh_token"] = refresh_token
        return Reply(200, document)

    def error(self, name: str) -> Reply:
        code, text = LWA_ERRORS[name]
        return Reply(code, {"error": name, "error_description": text, "request_id": "lwa-1"})


@dataclass
class World:
    """What there is at Amazon, over all regions; the servers only show it.

    Attributes:
        accounts: what `adsAccounts/list` shows.
        profiles: by region.
        advertisers: by DSP profile.
        seats: by advertiser, of one exchange and seat each.
        amc_accounts: by region.
        instances: by AMC account and marketplace.
    """

    accounts: list[dict[str, Any]] = field(default_factory=list)
    profiles: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    advertisers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    seats: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    amc_accounts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    instances: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    largest_page: int = 100


class AdsApi(LocalApi):
    """A host of the Ads API."""

    def __init__(
        self, region: str, world: World, login: LoginWithAmazon, latency: float = 0.0
    ) -> None:
        super().__init__(latency)
        self.region, self.world, self.login = region, world, login

    def handle(self, request: Request) -> Reply:
        routes = {
            "POST /adsAccounts/list": self._ads_accounts,
            "GET /v2/profiles": self._profiles,
            "GET /dsp/advertisers": self._advertisers,
            "POST /dsp/v1/seats/advertisers/current/list": self._seats,
            "GET /amc/accounts": self._amc_accounts,
            "GET /amc/instances": self._amc_instances,
        }
        require(request.endpoint in routes, "no such path", 404)
        require(
            request.headers.get("amazon-advertising-api-clientid") == CLIENT_ID,
            "the client id is missing",
            401,
        )
        signed = request.headers.get("authorization", "")
        require(signed.startswith("Bearer Atza|"), "the access token is missing", 401)
        if not self.login.is_valid(signed.removeprefix("Bearer ")):
            return Reply(401, {"code": "UNAUTHORIZED", "details": "Not authorized: token expired"})
        return routes[request.endpoint](request)

    def _ads_accounts(self, request: Request) -> Reply:
        kind = "application/vnd.listaccountsresource.v1+json"
        self._types(request, kind, sends=True)
        require("amazon-advertising-api-scope" not in request.headers, "no scope is expected")
        body = json.loads(request.body)
        exactly(body, {"maxResults", "nextToken"}, "fields")
        most = body.get("maxResults", 100)
        require(isinstance(most, int) and 1 <= most <= 100, "maxResults is 1 to 100")
        shown, token = self._slice(self.world.accounts, body.get("nextToken"), most)
        return Reply(200, {"adsAccounts": shown, **token}, media_type=kind)

    def _profiles(self, request: Request) -> Reply:
        exactly(
            request.query,
            {"apiProgram", "accessLevel", "profileTypeFilter", "validPaymentMethodFilter"},
            "parameters",
        )
        return Reply(200, self.world.profiles.get(self.region, []))

    def _advertisers(self, request: Request) -> Reply:
        exactly(request.query, {"startIndex", "count", "advertiserIdFilter"}, "parameters")
        start, count = (
            int(request.query.get("startIndex", 0)),
            int(request.query.get("count", 100)),
        )
        require(0 <= start <= 29900 and 1 <= count <= 100, "startIndex or count")
        scope = request.headers.get("amazon-advertising-api-scope", "")
        require(scope.isdigit(), "the scope is missing", 401)
        if scope not in self.world.advertisers:
            said = {"message": "No DSP here", "requestId": "dsp-1", "errors": []}
            return Reply(403, said)
        listed = self.world.advertisers[scope]
        count = min(count, self.world.largest_page)
        return Reply(200, {"totalResults": len(listed), "response": listed[start : start + count]})

    def _seats(self, request: Request) -> Reply:
        self._types(request, "application/json", sends=True)
        advertiser = request.headers.get("amazon-ads-accountid", "")
        require(advertiser.isdigit(), "the advertiser is missing")
        require(request.headers.get("amazon-advertising-api-scope", "").isdigit(), "the scope")
        body = json.loads(request.body)
        exactly(body, {"maxResults", "nextToken", "exchangeIdFilter"}, "fields")
        most = body.get("maxResults", 200)
        require(isinstance(most, int) and 1 <= most <= 200, "maxResults is 1 to 200")
        wanted = body.get("exchangeIdFilter")
        seats = [
            seat
            for seat in self.world.seats.get(advertiser, [])
            if not wanted or seat["exchangeId"] in wanted
        ]
        shown, token = self._slice(seats, body.get("nextToken"), most)
        group = {"advertiserId": advertiser, "currentSeats": shown}
        return Reply(200, {"advertiserSeats": [group], **token})

    def _amc_accounts(self, request: Request) -> Reply:
        kind = "application/vnd.amcaudiencesconnections.v1+json"
        self._types(request, kind)
        exactly(request.query, {"nextToken"}, "parameters")
        shown, token = self._slice(
            self.world.amc_accounts.get(self.region, []), request.query.get("nextToken"), 100
        )
        return Reply(200, {"amcAccounts": shown, **token}, media_type=kind)

    def _amc_instances(self, request: Request) -> Reply:
        kind = "application/vnd.amcinstances.v1+json"
        self._types(request, kind)
        exactly(request.query, {"nextToken", "limit"}, "parameters")
        account = request.headers.get("amazon-advertising-api-advertiserid", "")
        market = request.headers.get("amazon-advertising-api-marketplaceid", "")
        require(account.startswith("ENTITY") and bool(market), "the AMC account is missing")
        most = int(request.query.get("limit", 100))
        require(1 <= most <= 100, "limit is 1 to 100")
        listed = self.world.instances.get((account, market), [])
        shown, token = self._slice(listed, request.query.get("nextToken"), most)
        return Reply(200, {"instances": shown, "nextToken": None, **token}, media_type=kind)

    def _types(self, request: Request, kind: str, *, sends: bool = False) -> None:
        require(request.headers.get("accept") == kind, "another Accept", 406)
        if sends:
            require(request.headers.get("content-type") == kind, "another Content-Type", 415)

    def _slice(
        self, rows: list[dict[str, Any]], token: str | None, most: int
    ) -> tuple[list[dict[str, Any]], dict[str, str]]:
        """A page; its token is opaque to clients, and one that was not given is refused."""
        require(token is None or token.startswith("page-"), "the token was not given by this API")
        start = int(token.removeprefix("page-")) if token else 0
        end = start + min(most, self.world.largest_page)
        return rows[start:end], {"nextToken": f"page-{end}"} if end < len(rows) else {}


@dataclass
class Amazon:
    """All servers and what they show."""

    login: LoginWithAmazon
    world: World
    regions: dict[str, AdsApi]

    @property
    def servers(self) -> list[LocalApi]:
        return [self.login, *self.regions.values()]

    def environment(self) -> dict[str, str]:
        """Settings of a process that is to talk to these servers."""
        return {
            "AMAZON_CLIENT_ID": CLIENT_ID,
            "AMAZON_CLIENT_SECRET": CLIENT_SECRET,
            "AMAZON_TOKEN_URL": self.login.url,
            "AMAZON_AUTHORISE_URL": f"{self.login.url}/ap/oa",
            "AMAZON_ADS_HOSTS": json.dumps(
                {region: server.url for region, server in self.regions.items()}
            ),
            "AMAZON_REDIRECT_PORT": "0",
        }

    def heal(self) -> None:
        for server in self.servers:
            server.heal()

    def violations(self) -> list[str]:
        return [wrong for server in self.servers for wrong in server.violations]


@contextmanager
def amazon(latency: float = 0.0) -> Iterator[Amazon]:
    """Login with Amazon and three hosts of the Ads API, all on loopback."""
    world = World()
    with ExitStack() as stack:
        login = stack.enter_context(LoginWithAmazon(latency))
        regions = {
            region: stack.enter_context(AdsApi(region, world, login, latency))
            for region in ("NA", "EU", "FE")
        }
        yield Amazon(login, world, regions)


def query_of(url: str) -> dict[str, str]:
    """The parameters of an address."""
    return {name: values[-1] for name, values in parse_qs(url.partition("?")[2]).items()}
