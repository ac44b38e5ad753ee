"""`/services`: under which addresses a service is found, from the allocations that run and are healthy."""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import msgspec

from api.ask import Ask
from api.paging import Page, page_of
from api.problems import not_found
from api.routing import PAGING, Answer, Parameter, Route
from trueup.models.addresses import in_order, offers_of
from trueup.models.service import ServiceAddress
from trueup.models.state import ClusterState

_FORMATS: Final = ("json", "prometheus")
_FORMAT = Parameter(
    name="format", about="`prometheus`: a list of targets for its HTTP service discovery.", choices=_FORMATS
)


class AddressView(msgspec.Struct, frozen=True, kw_only=True):
    """One place where the service answers: *address* is what others dial."""

    address: str
    node: str
    job: str
    group: str
    allocation: str
    allocation_id: str
    labels: dict[str, str]


class ServiceView(msgspec.Struct, frozen=True, kw_only=True):
    """A service with its healthy addresses; none is an answer too."""

    name: str
    addresses: tuple[AddressView, ...]


class TargetView(msgspec.Struct, frozen=True, kw_only=True):
    """One target in the form Prometheus's `http_sd_configs` reads."""

    targets: tuple[str]
    labels: dict[str, str]


def services_of(state: ClusterState) -> dict[str, ServiceView]:
    """All services by name: those that jobs declare, with the addresses that are healthy."""
    addresses: dict[str, list[ServiceAddress]] = defaultdict(list)
    for name in state.job_names():
        job = state.wanted_job(name)
        for group in () if job is None else job.groups:
            for service in group.services:
                addresses.setdefault(service.name, [])
    for held in state.allocations.values():
        for service_name, address in offers_of(state, held):
            addresses[service_name].append(address)
    return {
        name: ServiceView(name=name, addresses=tuple(map(_view, in_order(found))))
        for name, found in sorted(addresses.items())
    }


def list_services(ask: Ask) -> Answer:
    """All services by name."""
    services = services_of(ask.state)
    if ask.choice("format", _FORMATS) == "prometheus":
        return [target for service in services.values() for target in prometheus_targets(service)]
    return page_of(
        services.values(),
        key=lambda service: (service.name,),
        cursor=ask.cursor,
        limit=ask.limit,
        show=lambda service: service,
    )


def show_service(ask: Ask, name: str) -> Answer:
    """One service."""
    service = services_of(ask.state).get(name)
    if service is None:
        raise not_found(f"no job declares a service {name!r}; /services lists those there are")
    if ask.choice("format", _FORMATS) == "prometheus":
        return prometheus_targets(service)
    return service


def prometheus_targets(service: ServiceView) -> list[TargetView]:
    """The service's addresses as Prometheus targets, all else as labels to relabel from."""
    return [
        TargetView(
            targets=(one.address,),
            labels={
                "__meta_trueup_service": service.name,
                "__meta_trueup_job": one.job,
                "__meta_trueup_group": one.group,
                "__meta_trueup_allocation": one.allocation,
                "__meta_trueup_allocation_id": one.allocation_id,
                "__meta_trueup_node": one.node,
                **{f"__meta_trueup_label_{_label_name(key)}": value for key, value in one.labels.items()},
            },
        )
        for one in service.addresses
    ]


def _view(one: ServiceAddress) -> AddressView:
    return AddressView(
        address=one.address,
        node=one.node,
        job=one.job,
        group=one.group,
        allocation=one.allocation,
        allocation_id=one.allocation_id,
        labels=one.labels,
    )


def _label_name(key: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", key)


ROUTES: Final[Sequence[Route]] = (
    Route(
        path="/services",
        handler=list_services,
        about="All services by name, with the addresses that are healthy now.",
        answer=Page[ServiceView],
        parameters=(_FORMAT, *PAGING),
        waits=True,
    ),
    Route(
        path="/services/<name>",
        handler=show_service,
        about="One service.",
        answer=ServiceView,
        parameters=(_FORMAT,),
        waits=True,
    ),
)
