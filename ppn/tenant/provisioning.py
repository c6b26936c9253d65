"""What an operator does to customers and tokens, each step in the audit log before and after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from ppn.audit.entry import Entry, Outcome
from ppn.audit.log import Log
from ppn.errors import PpnError, Refusal
from ppn.tenant import policy
from ppn.tenant.model import Amount, Tenant, Token
from ppn.tenant.store import Store
from ppn.tenant.tokens import Issued, check_id

# Where the requests of this module come from: the proxy's own node.
SOURCE = "local"
LONGEST_NAME = 64

Done = TypeVar("Done")


@dataclass(frozen=True)
class Provisioning:
    """Changes to customers and tokens; without an audit log nothing is changed (TEN-10).

    Args:
        store: what is changed.
        log: says so; the intent is durable before the change.
        correlation_id: of the command.
        clock: the time.
    """

    store: Store
    log: Log
    correlation_id: str
    clock: Callable[[], datetime]

    def create(
        self, name: str, ceiling: Amount, *, expires: datetime | None = None
    ) -> tuple[Tenant, Issued]:
        """Provision a customer, with its first token (TEN-03, TEN-07).

        Args:
            name: the owner of its VMs.
            ceiling: the most it may have.
            expires: when the token ends; None for never.

        Raises:
            PpnError: see `Store.create_tenant` and `Store.issue_token`, as for every call here.
            AuditUnavailable: nothing was changed, unless it was only the outcome that could not
                be written.
        """
        tenant = self._named(
            "tenant_create",
            name,
            lambda: self.store.create_tenant(name, ceiling, now=self.clock()),
        )
        return tenant, self.issue(name, expires=expires)

    def set_ceiling(self, name: str, figures: Mapping[str, int]) -> Tenant:
        """Give a tenant another ceiling; figures that are not given stay."""
        return self._named("tenant_set", name, lambda: self.store.set_ceiling(name, figures))

    def remove(self, name: str) -> None:
        """Forget a tenant that has no VMs."""
        self._named("tenant_remove", name, lambda: self.store.remove_tenant(name))

    def issue(self, tenant: str | None, *, expires: datetime | None = None) -> Issued:
        """Issue a token: a tenant's, or an operator's for None."""

        def act() -> Issued:
            return self.store.issue_token(tenant, now=self.clock(), expires=expires)

        if tenant is None:
            return self._do("token_issue", "", "", act)
        return self._named("token_issue", tenant, act)

    def revoke(self, token_id: str) -> Token:
        """End a token for good."""

        def act() -> Token:
            return self.store.revoke_token(token_id, now=self.clock())

        with self._refusing("token_revoke", ""):
            check_id(token_id)
        return self._do("token_revoke", "", token_id, act)

    def _named(self, operation: str, tenant: str, act: Callable[[], Done]) -> Done:
        with self._refusing(operation, tenant[:LONGEST_NAME]):
            policy.check_tenant_name(tenant)
        return self._do(operation, tenant, "", act)

    @contextmanager
    def _refusing(self, operation: str, tenant: str) -> Iterator[None]:
        """Put a refusal of what was typed into the log."""
        try:
            yield
        except Refusal as refusal:
            self._append(operation, tenant, "", "refused", refusal.code)
            raise

    def _do(self, operation: str, tenant: str, token: str, act: Callable[[], Done]) -> Done:
        """Do something between its intent and its outcome."""
        intent = self._append(operation, tenant, token, "allowed")
        try:
            done = act()
        except PpnError as error:
            self._append(operation, tenant, token, "failed", error.code, of=intent)
            raise
        if isinstance(done, Issued):
            token = done.token.id
        elif isinstance(done, Token):
            tenant = done.tenant or ""
        self._append(operation, tenant, token, "done", of=intent)
        return done

    def _append(
        self,
        operation: str,
        tenant: str,
        token: str,
        outcome: Outcome,
        code: str = "",
        *,
        of: int | None = None,
    ) -> int:
        return self.log.append(
            Entry(
                at=self.clock(),
                tenant=tenant,
                vm="",
                operation=operation,
                outcome=outcome,
                source=SOURCE,
                token=token,
                correlation_id=self.correlation_id,
                code=code,
                of=of,
            )
        )
