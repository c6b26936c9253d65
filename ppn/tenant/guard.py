"""Who asks, and whether the VM is theirs: decided on every route before its body is looked at."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from ppn.audit.entry import MAX_TEXT
from ppn.audit.log import AuditUnavailable
from ppn.errors import PpnError, Refusal
from ppn.host.spec import NAME_PATTERN
from ppn.log import get_logger
from ppn.tenant import tokens
from ppn.tenant.allocations import vm_unknown
from ppn.tenant.limits import Lanes, Rates
from ppn.tenant.metrics import Counts
from ppn.tenant.model import Allocation, Token
from ppn.tenant.records import Records
from ppn.tenant.sources import Sources
from ppn.tenant.store import Store
from ppn.tenant.threads import Threads
from ppn.tenant.view import told
from ppn.wire.bodies import Bodies
from ppn.wire.web import correlation_of

# A route with this tag is for tokens of that scope alone.
OPERATOR = "operator"
BEARER = re.compile(r"bearer +(?P<text>\S{1,256}) *", re.ASCII | re.IGNORECASE)

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

log = get_logger("tenant-proxy")


@dataclass
class Visit:
    """One request on its way through the proxy.

    Args:
        operation: what it asks for.
        source: the address it comes from.
        correlation_id: stands in the log lines of every service it passes.
        token: whose it is; None until that is known.
        token_id: the public part of what was sent as a token, good or not.
        vm: the VM it is about; empty for none.
        allocation: what the store has of that VM.
        intended: its intent is in the audit log, so that its outcome will be, too.
    """

    operation: str
    source: str
    correlation_id: str
    token: Token | None = None
    token_id: str = ""
    vm: str = ""
    allocation: Allocation | None = None
    intended: bool = False

    @property
    def tenant(self) -> str:
        """For whom the request speaks; empty for nobody."""
        if self.token is not None and self.token.tenant is not None:
            return self.token.tenant
        return "" if self.allocation is None else self.allocation.tenant

    @property
    def own(self) -> Allocation:
        """The allocation of the VM it is about.

        Raises:
            PpnError: the route has no VM in its path.
        """
        if self.allocation is None:
            raise PpnError("the route has no VM in its path", code="internal")
        return self.allocation


class TenantRoute(APIRoute):
    """A route that nobody passes but by the guard: nothing of its body is read before."""

    def get_route_handler(self) -> Handler:
        """The route's handler, behind the guard; called by FastAPI."""
        answer = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            guard: Guard = request.app.state.guard
            return await guard.admit(request, self, answer)

        return guarded


def visit_of(request: Request) -> Visit:
    """The visit a request is, once the guard has let it in."""
    visit: Visit = request.state.visit
    return visit


@dataclass
class Guard:
    """Lets a request in, or refuses it and says so in the audit log.

    Args:
        store: whose token and whose VM it is.
        threads: the store's calls, away from the loop.
        records: the audit log.
        counts: what is counted.
        known: from where whose tokens are good.
        sources: how often an address may ask.
        tenants: how often a tenant may ask.
        changes: how many changes of a tenant are under way at once.
        questions: how many questions of a tenant are.
        bodies: how much the changes of a tenant may send at once.
    """

    store: Store
    threads: Threads
    records: Records
    counts: Counts
    known: Sources
    sources: Rates
    tenants: Rates
    changes: Lanes
    questions: Lanes
    bodies: Bodies

    async def admit(self, request: Request, route: APIRoute, answer: Handler) -> Response:
        """Answer a request, if it may be asked.

        Args:
            request: with nothing of its body read.
            route: that it is for.
            answer: what answers it.

        Raises:
            PpnError: a refusal or failure; in words for a tenant, unless an operator asks.
            RequestValidationError: its query or body breaks the contract.
            HTTPException: its body cannot be read at all.
        """
        visit = Visit(
            operation=route.name,
            source=request.client.host if request.client is not None else "",
            correlation_id=correlation_of(request),
        )
        request.state.visit = visit
        outcome = "internal"
        try:
            with self.counts.seconds.labels(route.name).time():
                response = await self._through(visit, request, route, answer)
            outcome = "done"
            return response
        except (RequestValidationError, HTTPException) as error:
            outcome = "request_invalid"
            if lost := await self._note(visit, request, outcome):
                raise told(lost) from error
            raise
        except PpnError as error:
            outcome = error.code
            log.info("not done", operation=route.name, vm=visit.vm, error=str(error))
            found = await self._note(visit, request, outcome) or error
            # The pool's own people may know where it is.
            own = visit.token is not None and visit.token.scope == OPERATOR
            said = found if own else told(found)
            if said is error:
                raise
            raise said from error
        finally:
            self.counts.requests.labels(route.name, outcome).inc()

    async def _through(
        self, visit: Visit, request: Request, route: APIRoute, answer: Handler
    ) -> Response:
        self.sources.check(visit.source)
        visit.token = token = await self._authenticate(visit, request)
        caller = token.tenant or token.id
        self.tenants.check(caller)
        if OPERATOR in route.tags and token.scope != OPERATOR:
            raise Refusal(
                "only the pool's operators may ask for this",
                code="scope_refused",
                constraint="scope of the token",
                hint="ask the pool's operator",
            )
        lanes = self.questions if request.method == "GET" else self.changes
        async with lanes.turn(caller) as waited:
            if waited:
                # It may have been revoked meanwhile: what waits then is not begun any more.
                visit.token = token = await self._authenticate(visit, request)
            if "vm" in request.path_params:
                visit.vm = request.path_params["vm"]
                visit.allocation = await self._known(visit.vm, token)
            if request.method == "GET":
                return await answer(request)
            # Not before: a stranger's body takes no memory, and an unknown VM's neither.
            async with self.bodies.read(caller, request.receive) as receive:
                return await answer(Request(request.scope, receive))

    async def _known(self, vm: str, token: Token) -> Allocation:
        """What the store has of a VM that a token may be used for.

        Raises:
            Refusal: `vm_unknown`, the same for every other one.
        """
        # Not every database takes every text.
        if not re.fullmatch(NAME_PATTERN, vm):
            raise vm_unknown(vm[:MAX_TEXT])
        owner = None if token.scope == OPERATOR else token.tenant
        return await self.threads.call(self.store.allocation, owner, vm)

    async def _authenticate(self, visit: Visit, request: Request) -> Token:
        """Whose token came with a request; one refusal, whatever is wrong with it."""
        given = request.headers.getlist("authorization")
        found = BEARER.fullmatch(given[0]) if len(given) == 1 else None
        if found is None:
            raise tokens.refused()
        visit.token_id = tokens.id_of(found["text"]) or ""
        token = await self.threads.call(
            self.store.authenticate, found["text"], now=datetime.now(UTC)
        )
        if not self.known.take(visit.source, token):
            log.warning("token of another's", token=token.id, source=visit.source)
            raise tokens.refused()
        return token

    async def _note(self, visit: Visit, request: Request, code: str) -> AuditUnavailable | None:
        """Write down that a change was refused, unless its outcome says so; what keeps from it."""
        if request.method == "GET" or visit.intended:
            return None
        visit.vm = visit.vm or request.path_params.get("vm", "")
        try:
            await self.records.refused(visit, code)
        except AuditUnavailable as error:
            log.error("refusal not written down", code=code, error=str(error))
            return error
        return None
