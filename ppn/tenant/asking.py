"""The sweeper's questions to the fleet controllers, each bounded in time and in its answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import httpx
from pydantic import ValidationError

from ppn.fleet.peers import Stage
from ppn.log import get_logger
from ppn.tenant.model import Allocation
from ppn.tenant.verdict import View
from ppn.wire.heartbeat import VmReport
from ppn.wire.model import CORRELATION_HEADER
from ppn.wire.problems import ProblemBody
from ppn.wire.reading import TooLong, read_body

LOOK_SECONDS = 5.0
REMOVE_SECONDS = 60.0
# An answer is about one VM.
MAX_ANSWER_BYTES = 1024 * 1024

log = get_logger("sweeper")


@dataclass(frozen=True)
class Answer:
    """A controller's answer: `said` when it is one, with a body unless it knows no such VM."""

    said: bool
    body: dict[str, Any] | None = None


@dataclass
class Asking:
    """One sweep's questions to the fleet controllers.

    Args:
        client: speaks HTTP.
        controllers: base URLs of all of them.
        silent: those that did not answer; for the rest of the sweep nobody waits for them again.
    """

    client: httpx.AsyncClient
    controllers: Sequence[str]
    silent: set[str] = field(default_factory=set)

    async def views(self, about: Allocation) -> list[View | None]:
        """What each controller says of a VM; None for one that does not.

        First what all of them are making: one that ends between the two questions is found by the
        second, and the other way round it would be missed.
        """
        stages = await self._all(about, f"/v1/intents/{about.vm}")
        founds = await self._all(about, f"/v1/vms/{about.vm}")
        return [_view(stage, found) for stage, found in zip(stages, founds, strict=True)]

    async def remove(self, about: Allocation, uuid: str) -> None:
        """Ask for a VM's removal, one controller after the other, until one has done it.

        Args:
            about: the removal.
            uuid: of the VM that was seen when this was decided; whichever came since stays.
        """
        path = f"/v1/vms/{about.vm}?uuid={uuid}"
        try:
            async with asyncio.timeout(REMOVE_SECONDS):
                for url in self.controllers:
                    answer = await self._ask(about, "DELETE", url, path, REMOVE_SECONDS)
                    if answer.said and answer.body is not None:
                        return
        except TimeoutError:
            log.warning("removal takes long", vm=about.vm)

    async def _all(self, about: Allocation, path: str) -> list[Answer]:
        questions = (self._ask(about, "GET", url, path, LOOK_SECONDS) for url in self.controllers)
        return await asyncio.gather(*questions)

    async def _ask(
        self, about: Allocation, method: str, controller: str, path: str, seconds: float
    ) -> Answer:
        if controller in self.silent:
            return Answer(said=False)
        headers = {
            CORRELATION_HEADER: f"sweep-{about.operation}",
            "Accept-Encoding": "identity",
        }
        try:
            async with (
                asyncio.timeout(seconds),
                self.client.stream(
                    method, controller + path, headers=headers, timeout=seconds
                ) as answer,
            ):
                content = await read_body(answer, MAX_ANSWER_BYTES)
            return _understood(answer.is_success, content)
        except (httpx.HTTPError, TooLong, TimeoutError) as error:
            self.silent.add(controller)
            reason = str(error) or type(error).__name__
            log.warning("controller not asked", url=controller, error=reason)
        except ValueError as error:
            log.warning("answer not understood", url=controller, error=str(error))
        return Answer(said=False)


def _understood(success: bool, content: bytes) -> Answer:
    if not success:
        return Answer(said=ProblemBody.model_validate_json(content).code == "vm_unknown")
    body = json.loads(content)
    if not isinstance(body, dict):
        raise ValueError("the answer is no object")
    return Answer(said=True, body=body)


def _view(stage: Answer, found: Answer) -> View | None:
    if not stage.said or not found.said:
        return None
    view = View(cast(Stage, stage.body.get("stage", "going")) if stage.body else None)
    if found.body is None:
        return view
    try:
        report = VmReport.model_validate(found.body.get("vm"), strict=False)
    except ValidationError as error:
        log.warning("answer not understood", error=str(error))
        return None
    return replace(view, vm=report, stale=found.body.get("stale", False))
