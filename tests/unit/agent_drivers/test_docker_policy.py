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
from tests.unit.agent_drivers.docker_world import DockerWorld, a_launch

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


OPEN = DockerPolicy(privileged=True, mounts=["/"], capabilities=["ALL"], network_modes=["bridge", "host"])
"""All that policy can allow."""

_OF_A_CONTAINER = """
    Annotations AutoRemove Binds BlkioDeviceReadBps BlkioDeviceReadIOps BlkioDeviceWriteBps BlkioDeviceWriteIOps
    BlkioWeight BlkioWeightDevice CapAdd CapDrop Capabilities Cgroup CgroupParent CgroupnsMode ConsoleSize
    ContainerIDFile CpuCount CpuPercent CpuPeriod CpuQuota CpuRealtimePeriod CpuRealtimeRuntime CpuShares CpusetCpus
    CpusetMems DeviceCgroupRules DeviceRequests Devices Dns DnsOptions DnsSearch ExtraHosts GroupAdd
    IOMaximumBandwidth IOMaximumIOps Init IpcMode Isolation KernelMemory KernelMemoryTCP Links LogConfig MaskedPaths
    Memory MemoryReservation MemorySwap MemorySwappiness Mounts NanoCpus NetworkMode OomKillDisable OomScoreAdj PidMode
    PidsLimit PortBindings Privileged PublishAllPorts ReadonlyPaths ReadonlyRootfs RestartPolicy Runtime SecurityOpt
    ShmSize StorageOpt Sysctls Tmpfs UTSMode Ulimits UsernsMode VolumeDriver VolumesFrom
"""
OF_A_CONTAINER = _OF_A_CONTAINER.split()
"""Every key of HostConfig that an engine has known."""

_OF_A_REQUEST = """
    ArgsEscaped AttachStderr AttachStdin AttachStdout Domainname Healthcheck Hostname MacAddress NetworkDisabled
    NetworkingConfig OnBuild Shell StdinOnce StopSignal StopTimeout Volumes WorkingDir
"""
OF_A_REQUEST = _OF_A_REQUEST.split()
"""Every other key of a request."""


def with_all_settings() -> dict[str, Any]:
    """A request that has every key there is a setting for."""
    return create_request(
        a_launch(
            Path("/var/lib/agent"),
            "serve",
            entrypoint=("sh",),
            network_mode="bridge",
            published=[("127.0.0.1", 20000, 80)],
            shm_size=1024**2,
        ),
        OWNER,
    )


@pytest.mark.parametrize("key", OF_A_CONTAINER)
def test_every_setting_of_a_container_is_asked_for_by_a_field_or_refused(key: str) -> None:
    """Whatever policy allows: no other part of the agent decides what a container may get."""
    request = with_all_settings()
    expected = []
    if key not in request["HostConfig"]:
        request["HostConfig"][key] = ["anything"]
        expected = [f"HostConfig.{key} is not known to this node's policy"]

    assert list(refusals(request, OPEN, given={}, networks=())) == expected


@pytest.mark.parametrize("key", OF_A_REQUEST)
def test_what_no_field_asks_for_is_refused_beside_that_as_well(key: str) -> None:
    request = {**with_all_settings(), key: "anything"}

    assert list(refusals(request, OPEN, given={}, networks=())) == [
        f"{key} is not known to this node's policy"
    ]


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"VolumeOptions": {"DriverConfig": {"Options": {"o": "bind", "device": "/"}}}}, "VolumeOptions"),
        ({"BindOptions": {"Propagation": "rshared"}}, "BindOptions"),
        ({"ImageOptions": {"Subpath": "x"}}, "ImageOptions"),
        ({"ClusterOptions": {}}, "ClusterOptions"),
        ({"Consistency": "cached"}, "Consistency"),
        ({"TmpfsOptions": {"Mode": 0o777}}, "TmpfsOptions.Mode"),
        ({"TmpfsOptions": {"Options": [["exec"]]}}, "TmpfsOptions.Options"),
    ],
)
def test_an_option_of_a_mount_that_no_field_asks_for_is_refused(options: dict[str, Any], name: str) -> None:
    """A volume of a driver with options is any device or folder of the node."""
    request = with_all_settings()
    request["HostConfig"]["Mounts"] = [{"Type": "volume", "Target": "/x", **options}]

    assert list(refusals(request, OPEN, given={}, networks=())) == [
        f"HostConfig.Mounts.{name} is not known to this node's policy"
    ]


@pytest.mark.parametrize("kind", ["npipe", "cluster", "image", "volumes"])
def test_a_kind_of_mount_that_is_not_known_is_refused(kind: str) -> None:
    request = with_all_settings()
    request["HostConfig"]["Mounts"] = [{"Type": kind, "Source": "/srv/a", "Target": "/x"}]

    assert len(refusals(request, OPEN, given={}, networks=())) == 1


@pytest.mark.docker
def test_the_engine_here_knows_no_setting_that_is_not_in_the_tables(docker_world: DockerWorld) -> None:
    """A newer engine that has one more would say so by this."""
    seen = docker_world.inspect(docker_world.start("sleep", "100"))

    assert seen["HostConfig"].keys() <= set(OF_A_CONTAINER)
    assert seen["Config"].keys() <= {*OF_A_REQUEST, *with_all_settings()}


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
