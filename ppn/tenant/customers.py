"""The part of the tenant store that says who the customers are: tenants and their tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, Engine, delete, insert, update
from sqlalchemy.exc import IntegrityError

from ppn.errors import Refusal
from ppn.tenant import policy, rows
from ppn.tenant.database import transaction
from ppn.tenant.model import Amount, Tenant, Token
from ppn.tenant.schema import tenants, tokens
from ppn.tenant.tokens import NO_DIGEST, Issued, check, digest, id_of, new_id, new_text, refused


class Customers:
    """Tenants and tokens.

    Args:
        engine: of the store's database.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create_tenant(self, name: str, ceiling: Amount, *, now: datetime) -> Tenant:
        """Provision a customer.

        Args:
            name: the owner of its VMs.
            ceiling: the most it may have; without one there is no tenant (TEN-07).
            now: the time.

        Raises:
            Refusal: `tenant_name_invalid`, `amount_invalid`, `tenant_exists`.
            StoreUnavailable: see `transaction`, as for every call.
        """
        policy.check_tenant_name(name)
        policy.check_ceiling(ceiling)
        values = {"name": name, "created": now, **_figures(ceiling)}
        with transaction(self._engine) as connection:
            try:
                connection.execute(insert(tenants).values(values))
            except IntegrityError as error:
                raise Refusal(
                    f"tenant {name} exists",
                    code="tenant_exists",
                    constraint="one tenant of a name",
                    hint="choose another name, or set its ceiling",
                ) from error
            return read(connection, name)

    def tenants(self) -> tuple[Tenant, ...]:
        """Every tenant, by name."""
        with transaction(self._engine, read_only=True) as connection:
            return rows.read_tenants(connection)

    def tenant(self, name: str) -> Tenant:
        """One tenant.

        Raises:
            Refusal: `tenant_unknown`.
        """
        with transaction(self._engine, read_only=True) as connection:
            return read(connection, name)

    def set_ceiling(self, name: str, figures: Mapping[str, int]) -> Tenant:
        """Give a tenant another ceiling; below what it has, it may only shrink from then on.

        Args:
            name: of the tenant.
            figures: of `Amount`, by name; the others stay, also when somebody else sets them now.

        Raises:
            Refusal: `amount_invalid`, `tenant_unknown`.
        """
        with transaction(self._engine) as connection:
            lock(connection, name)
            ceiling = replace(read(connection, name).ceiling, **figures)
            policy.check_ceiling(ceiling)
            query = update(tenants).where(tenants.c.name == name).values(_figures(ceiling))
            connection.execute(query)
            return read(connection, name)

    def remove_tenant(self, name: str) -> None:
        """Forget a tenant and its tokens.

        Raises:
            Refusal: `tenant_unknown`; `tenant_has_vms`: whose would they be?
        """
        with transaction(self._engine) as connection:
            lock(connection, name)
            taken = read(connection, name).used.vms
            if taken:
                raise Refusal(
                    f"tenant {name} has VMs",
                    code="tenant_has_vms",
                    constraint="VMs of the tenant",
                    wanted=0,
                    free=taken,
                    unit="VM",
                    hint="revoke its tokens, destroy its VMs, then remove it",
                )
            connection.execute(delete(tokens).where(tokens.c.tenant == name))
            connection.execute(delete(tenants).where(tenants.c.name == name))

    def issue_token(
        self, tenant: str | None, *, now: datetime, expires: datetime | None = None
    ) -> Issued:
        """Issue a token; its text is in the answer and nowhere else.

        Args:
            tenant: for whom it speaks; None for an operator's token.
            now: the time.
            expires: when it ends; None for never.

        Raises:
            Refusal: `tenant_unknown`; `expiry_past`.
        """
        if expires is not None and expires <= now:
            raise Refusal(
                f"the token would have expired on {expires:%Y-%m-%d %H:%M} already",
                code="expiry_past",
                constraint="expiry in the future",
                hint="choose a later one",
            )
        token_id = new_id()
        text = new_text(token_id)
        values = {"id": token_id, "tenant": tenant, "digest": digest(text)}
        times = {"created": now, "expires": expires, "revoked": None}
        with transaction(self._engine) as connection:
            if tenant is not None:
                lock(connection, tenant)
            connection.execute(insert(tokens).values(values | times))
            return Issued(_token(connection, token_id), text)

    def revoke_token(self, token_id: str, *, now: datetime) -> Token:
        """End a token for good; one that was revoked before keeps its time.

        Raises:
            Refusal: `token_unknown`.
        """
        with transaction(self._engine) as connection:
            query = update(tokens).where(tokens.c.id == token_id, tokens.c.revoked.is_(None))
            connection.execute(query.values(revoked=now))
            return _token(connection, token_id)

    def tokens(self, tenant: str | None = None) -> tuple[Token, ...]:
        """Tokens, the oldest first: all, or a tenant's."""
        with transaction(self._engine, read_only=True) as connection:
            return tuple(token for token, _ in rows.read_tokens(connection, tenant=tenant))

    def authenticate(self, text: str, *, now: datetime) -> Token:
        """The token a text is.

        Raises:
            Refusal: `token_refused`, the same for unknown, wrong, revoked and expired ones.
        """
        token_id = id_of(text)
        if token_id is None:
            raise refused()
        with transaction(self._engine, read_only=True) as connection:
            found = rows.read_tokens(connection, token_id=token_id)
        known, kept = found[0] if found else (None, NO_DIGEST)
        return check(text, known, kept, now)


def lock(connection: Connection, tenant: str) -> None:
    """Keep every other transaction from a tenant until this one ends.

    Raises:
        Refusal: `tenant_unknown`.
    """
    if not rows.lock_tenant(connection, tenant):
        raise _unknown(tenant)


def read(connection: Connection, tenant: str) -> Tenant:
    """A tenant with what it uses.

    Raises:
        Refusal: `tenant_unknown`.
    """
    found = rows.read_tenants(connection, tenant)
    if not found:
        raise _unknown(tenant)
    return found[0]


def _unknown(tenant: str) -> Refusal:
    return Refusal(
        f"there is no tenant {tenant!r}",
        code="tenant_unknown",
        constraint="known tenant",
        hint="list the tenants",
    )


def _figures(ceiling: Amount) -> dict[str, int]:
    return {name: getattr(ceiling, name) for name in policy.TITLES}


def _token(connection: Connection, token_id: str) -> Token:
    found = rows.read_tokens(connection, token_id=token_id)
    if not found:
        raise Refusal(
            f"there is no token {token_id[:40]!r}",
            code="token_unknown",
            constraint="known token",
            hint="list the tokens",
        )
    return found[0][0]
