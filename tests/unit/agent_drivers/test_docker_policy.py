"""What a node's policy refuses of a container, and the words for what the engine refuses."""

import re
from pathlib import Path
from typing import Any

import pytest

from agent.drivers.docker_errors import EngineRefused, NotThere
from agent.drivers.docker_failures import pull_failure, start_failure
from agent.drivers.docker_owner import Owner
from agent.drivers.docker_policy import DockerPolicy, refusals
from agent.drivers.docker_spec import create_request
from tests.unit.agent_drivers.docker_world import a_launch

OWNER = Owner(cluster="c", node="node-1")
TIGHT = DockerPolicy()


def refused(policy: DockerPolicy, **fields: Any) -> list[str]:
    launch = a_launch(Path("/var/lib/agent"), **fields)
    request = create_request(launch, OWNER)
    given = {str(launch.task_dir): True, "/srv/given": True, "/srv/shown": False}
    return list(refusals(request, policy, given=given, networks={"container:x"}))


@pytest.mark.parametrize(
    ("fields", "setting"),
    [
        ({"privileged": True}, "drivers.docker.privileged"),
        ({"cap_add": ("SYS_ADMIN",)}, '"SYS_ADMIN".*drivers.docker.capabilities'),
        ({"cap_add": ("ALL",)}, "drivers.docker.capabilities"),
        ({"network_mode": "host"}, '"host".*drivers.docker.network_modes'),
        ({"network_mode": "container:of-another"}, "drivers.docker.network_modes"),
        ({"mounts": ({"source": "/etc", "target": "/x"},)}, 'the path "/etc".*drivers.docker.mounts'),
        ({"mounts": ({"source": "/", "target": "/x"},)}, "drivers.docker.mounts"),
        ({"mounts": ({"source": "srv", "target": "/x"},)}, "drivers.docker.mounts"),
        ({"mounts": ({"source": "/srv/shown", "target": "/x"},)}, '"/srv/shown" may only be read'),
        (
            {"mounts": ({"type": "volume", "source": "v", "target": "/x"},)},
            'volume "v".*drivers.docker.mounts',
        ),
    ],
)
def test_what_gives_more_than_a_containers_own_is_refused_by_default(
    fields: dict[str, Any], setting: str
) -> None:
    [reason] = refused(TIGHT, **fields)

    assert re.search(setting, reason)


@pytest.mark.parametrize(
    ("policy", "fields"),
    [
        (TIGHT, {}),
        (TIGHT, {"network_mode": "bridge"}),
        (TIGHT, {"network_mode": ""}),
        (TIGHT, {"cap_add": ("CHOWN", "CAP_KILL")}),
        (TIGHT, {"volumes": [("/srv/given", "/data", False)]}),
        (TIGHT, {"mounts": ({"source": "/srv/shown", "target": "/x", "read_only": True},)}),
        (TIGHT, {"mounts": ({"type": "tmpfs", "target": "/x"}, {"type": "volume", "target": "/y"})}),
        (DockerPolicy(privileged=True), {"privileged": True}),
        (DockerPolicy(capabilities=["CAP_NET_ADMIN"]), {"cap_add": ("net_admin",)}),
        (DockerPolicy(capabilities=["ALL"]), {"cap_add": ("SYS_ADMIN",)}),
        (DockerPolicy(network_modes=["host"]), {"network_mode": "host"}),
        (DockerPolicy(mounts=["/srv"]), {"mounts": ({"source": "/srv/a/b", "target": "/x"},)}),
        (DockerPolicy(mounts=["/"]), {"mounts": ({"source": "/etc", "target": "/x"},)}),
        (DockerPolicy(mounts=["v"]), {"mounts": ({"type": "volume", "source": "v", "target": "/x"},)}),
    ],
)
def test_what_policy_lists_is_allowed(policy: DockerPolicy, fields: dict[str, Any]) -> None:
    assert refused(policy, **fields) == []


@pytest.mark.parametrize("source", ["/srv-other", "/srv/../etc", "srv/a", ""])
def test_only_what_is_beneath_a_listed_path_is_beneath_it(source: str) -> None:
    request = create_request(a_launch(Path("/var/lib/agent")), OWNER)
    request["HostConfig"]["Mounts"] = [{"Type": "bind", "Source": source, "Target": "/x"}]

    assert len(refusals(request, DockerPolicy(mounts=["/srv"]), given={}, networks=())) == 1


def test_the_default_network_is_the_bridge_and_refused_where_that_is() -> None:
    [reason] = refused(DockerPolicy(network_modes=["none"]), network_mode="")

    assert reason.startswith('network_mode "bridge" is not allowed')


@pytest.mark.parametrize(
    "key", ["Devices", "PidMode", "IpcMode", "UsernsMode", "SecurityOpt", "Binds", "VolumesFrom"]
)
def test_a_setting_policy_does_not_know_is_refused(key: str) -> None:
    request = create_request(a_launch(Path("/var/lib/agent")), OWNER)
    request["HostConfig"][key] = ["anything"]

    found = refusals(request, DockerPolicy(privileged=True, mounts=["/"]), given={}, networks=())

    assert found == [f"HostConfig.{key} is not known to this node's policy"]


@pytest.mark.parametrize(
    ("error", "temporary"),
    [
        (EngineRefused(500, "no space left on device"), True),
        (EngineRefused(500, "failed to create shim task: ttrpc: closed"), True),
        (EngineRefused(409, "cannot join network of a non running container: x"), True),
        (NotThere("No such container: trueup-a-server"), True),
        (NotThere("network x not found"), False),
        (EngineRefused(500, "Bind for 127.0.0.1:80 failed: port is already allocated"), False),
        (EngineRefused(400, 'exec: "x": executable file not found in $PATH'), False),
        (EngineRefused(500, "unable to find user ghost: no matching entries in passwd file"), False),
    ],
)
def test_a_start_is_tried_again_where_what_it_lacked_may_come(error: EngineRefused, temporary: bool) -> None:
    failure = start_failure("shop:1", error)

    assert failure.temporary is temporary
    assert str(failure).startswith(f"cannot start a container of shop:1: {error.explanation}")


@pytest.mark.parametrize(
    ("words", "temporary"),
    [
        ('Get "https://r/v2/": dial tcp: lookup r on 10.0.0.1:53: no such host', True),
        ('Get "https://r/v2/": dial tcp 127.0.0.1:1: connect: connection refused', True),
        ('Get "https://r/v2/": net/http: TLS handshake timeout', True),
        ("toomanyrequests: You have reached your pull rate limit", True),
        ("received unexpected HTTP status: 503 Service Unavailable", True),
        ("manifest for shop:9 not found: manifest unknown", False),
        ("pull access denied for shop, repository does not exist or may require 'docker login'", False),
        ("no matching manifest for linux/arm64 in the manifest list entries", False),
    ],
)
def test_a_pull_is_tried_again_where_the_registry_may_answer_yet(words: str, temporary: bool) -> None:
    failure = pull_failure("shop:9", EngineRefused(500, words))

    assert failure.temporary is temporary
    assert words in str(failure)
