"""What a task is started with."""

from pathlib import Path
from typing import Any

import pyrage
import pytest

from agent.age_key import AgeKey, open_age_key
from agent.doors import Account, SecretMissing, TaskFolders, TaskLaunch, WantedArtifact
from agent.environment import (
    NodeFacts,
    NotStartable,
    VolumePolicy,
    build_artifacts,
    build_files,
    build_launch,
    without_secrets,
)
from agent.secrets_folder import SecretsFolder
from tests.builders import a_group, a_task
from tests.unit.agent.world import FixedSecrets, an_assignment
from trueup.models.ids import NodeId
from trueup.models.job import (
    Artifact,
    Lifecycle,
    Port,
    SecretValue,
    Task,
    TaskConfig,
    TaskFile,
    TaskGroup,
    Volume,
)
from trueup.models.wire import Assignment

FOLDERS = TaskFolders(
    task=Path("/data/a1/tasks/server"), shared=Path("/data/a1/shared"), logs=Path("/data/a1/logs")
)
NODE = NodeFacts(
    id=NodeId("n1"),
    name="node-1",
    region="eu",
    host_ip="10.0.0.7",
    volumes={"shop-data": VolumePolicy(path="/srv/shop", read_only=True)},
)
ME = Account(name="www-data", home="/var/www", uid=33, gid=33)
SECRETS = FixedSecrets({"db": "hunter2"})


def assigned(
    *tasks: Task, ports: tuple[Port, ...] = (), given: dict[str, int] | None = None, **group: Any
) -> Assignment:
    return an_assignment(group=a_group(tasks=tasks or (a_task(),), ports=ports, **group), ports=given or {})


def launched(assignment: Assignment, name: str = "server", account: Account | None = ME) -> TaskLaunch:
    task = assignment.group.task(name)
    assert task is not None
    return build_launch(assignment, task, 1, NODE, FOLDERS, account, SECRETS)


def test_a_process_gets_its_variables_and_nothing_of_the_agents() -> None:
    task = a_task(env={"MODE": "prod", "AT": "${NODE_NAME}:${PORT_http}"})
    assignment = an_assignment(
        group=a_group(tasks=(task,), ports=(Port(name="http"),)), ports={"http": 20001}, epoch=3
    )
    assert launched(assignment).environment == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/var/www",
        "USER": "www-data",
        "LANG": "C.UTF-8",
        "TRUEUP_NODE_NAME": "node-1",
        "TRUEUP_NODE_ID": "n1",
        "TRUEUP_NODE_REGION": "eu",
        "TRUEUP_JOB_NAME": "web",
        "TRUEUP_GROUP_NAME": "app",
        "TRUEUP_TASK_NAME": "server",
        "TRUEUP_ALLOC_ID": "a1",
        "TRUEUP_ALLOC_NAME": "web.app[0]",
        "TRUEUP_ALLOC_INDEX": "0",
        "TRUEUP_ALLOC_EPOCH": "3",
        "TRUEUP_ALLOC_DIR": "/data/a1/shared",
        "TRUEUP_TASK_DIR": "/data/a1/tasks/server",
        "TRUEUP_REVISION": "r1",
        "TRUEUP_HOST_IP": "10.0.0.7",
        "TRUEUP_PORT_http": "20001",
        "TRUEUP_HOST_PORT_http": "20001",
        "TRUEUP_ADDR_http": "10.0.0.7:20001",
        "MODE": "prod",
        "AT": "node-1:20001",
    }


def a_container(name: str = "server", **fields: Any) -> Task:
    config = TaskConfig(image="shop:1", network_mode=fields.pop("network_mode", ""))
    return a_task(name, driver="docker", config=config, **fields)


def test_a_container_keeps_its_images_environment_and_sees_its_folders() -> None:
    launch = launched(assigned(a_container()), account=None)
    assert not {"PATH", "HOME", "USER", "LANG"} & launch.environment.keys()
    assert launch.mounts == (
        ("/data/a1/tasks/server", "/data/a1/tasks/server", False),
        ("/data/a1/shared", "/data/a1/shared", False),
    )


def test_the_port_to_listen_on_differs_inside_a_container() -> None:
    ports = (Port(name="http", to=80), Port(name="admin", port=9000, bind="127.0.0.1"))
    assignment = assigned(a_container(), ports=ports, given={"http": 20001, "admin": 9000})
    launch = launched(assignment, account=None)
    environment = launch.environment
    assert environment["TRUEUP_PORT_http"] == "80"
    assert environment["TRUEUP_HOST_PORT_http"] == "20001"
    assert environment["TRUEUP_ADDR_admin"] == "127.0.0.1:9000"
    assert list(launch.published) == [("10.0.0.7", 20001, 80), ("127.0.0.1", 9000, 9000)]


def test_on_the_hosts_network_nothing_is_published() -> None:
    assignment = assigned(
        a_container(network_mode="host"), ports=(Port(name="http", to=80),), given={"http": 20001}
    )
    launch = launched(assignment, account=None)
    assert launch.environment["TRUEUP_PORT_http"] == "20001"
    assert not launch.published


def test_a_port_is_published_by_the_task_it_names_else_by_the_first_main_container() -> None:
    tasks = (
        a_container("init", lifecycle=Lifecycle(hook="prestart")),
        a_container("server"),
        a_container("proxy"),
    )
    ports = (Port(name="http"), Port(name="admin", task="proxy"))
    assignment = assigned(*tasks, ports=ports, given={"http": 20001, "admin": 20002})
    published = {
        name: [port for _, port, _ in launched(assignment, name, None).published]
        for name in ("init", "server", "proxy")
    }
    assert published == {"init": [], "server": [20001], "proxy": [20002]}


def test_secrets_come_into_environment_and_config() -> None:
    config = TaskConfig(command=("run", "--password=${secret:db}"))
    task = a_task(env={"A": SecretValue(secret="db"), "B": "pg://app:${secret:db}@db"}, config=config)
    launch = launched(assigned(task))
    assert launch.environment["A"] == "hunter2"
    assert launch.environment["B"] == "pg://app:hunter2@db"
    assert launch.config.command == ("run", "--password=hunter2")


def test_an_absent_secret_is_named() -> None:
    with pytest.raises(SecretMissing, match="other"):
        launched(assigned(a_task(env={"A": "${secret:other}"})))


def test_config_gets_variables_and_a_doubled_dollar_stays_one() -> None:
    config = TaskConfig(command=("sh", "-c", "echo ${ALLOC_NAME} $${HOME} $HOME"), cwd="${TASK_DIR}/x")
    launch = launched(assigned(a_task(config=config)))
    assert launch.config.command[2] == "echo web.app[0] ${HOME} $HOME"
    assert launch.config.cwd == "/data/a1/tasks/server/x"


@pytest.mark.parametrize(
    "task", [a_task(env={"A": "${NOPE}"}), a_task(config=TaskConfig(command=("${NOPE}",)))]
)
def test_an_unknown_variable_says_where_it_stands(task: Task) -> None:
    with pytest.raises(NotStartable, match=r"(env\.A|config\.command): \$\{NOPE\}"):
        launched(assigned(task))


def test_volumes_come_from_the_nodes_policy() -> None:
    volume = Volume(name="data", source="shop-data")
    assignment = assigned(a_container(volumes={"data": "/var/lib/shop"}), volumes=(volume,))
    assert ("/srv/shop", "/var/lib/shop", True) in launched(assignment, account=None).mounts

    other = assigned(a_container(volumes={"data": "/x"}), volumes=(Volume(name="data", source="none"),))
    with pytest.raises(NotStartable, match="offers no volume none"):
        launched(other, account=None)


@pytest.mark.parametrize("place", ["data", "${TASK_DIR}/data", "${TASK_DIR}/./data"])
def test_the_place_of_a_processs_volume_is_in_its_folder(place: str) -> None:
    """Also where it says so by the variable for it."""
    volume = Volume(name="data", source="shop-data")
    launch = launched(assigned(a_task(volumes={"data": place}), volumes=(volume,)))
    assert launch.mounts == (("/srv/shop", place.removeprefix("${TASK_DIR}/"), True),)


def test_variables_in_the_place_of_a_containers_volume() -> None:
    volume = Volume(name="data", source="shop-data")
    assignment = assigned(a_container(volumes={"data": "/var/${TASK_NAME}"}), volumes=(volume,))
    assert launched(assignment, account=None).mounts[-1] == ("/srv/shop", "/var/server", True)


def files_of(group: TaskGroup) -> list[tuple[str, str, int]]:
    assignment = an_assignment(group=group)
    found = build_files(assignment, group.tasks[0], NODE, FOLDERS, SECRETS)
    return [(one.path, one.content, one.mode) for one in found]


def test_files_get_variables_and_leave_unknown_ones_as_written() -> None:
    files = (
        TaskFile(path="local/a", content="at ${NODE_NAME} ${nginx_var} $${x}"),
        TaskFile(path="bin/run", content="x", mode="0755"),
        TaskFile(path="key", secret="db", mode="0644"),
        TaskFile(path="conf", content="p=${secret:db}", mode="0644"),
    )
    assert files_of(a_group(tasks=(a_task(files=files),))) == [
        ("local/a", "at node-1 ${nginx_var} ${x}", 0o644),
        ("bin/run", "x", 0o755),
        ("key", "hunter2", 0o600),
        ("conf", "p=hunter2", 0o600),
    ]


def artifacts_of(**fields: str) -> tuple[WantedArtifact, ...]:
    artifact = Artifact(**({"source": "https://x/y", "checksum": "sha256:0"} | fields))
    assignment = assigned(a_task(artifacts=(artifact,)))
    return build_artifacts(assignment, assignment.group.tasks[0], NODE, FOLDERS, SECRETS)


def test_artifacts_have_variables_put_in_and_are_shown_as_written() -> None:
    assert artifacts_of(
        source="https://me:${secret:db}@x/${NODE_REGION}/$${y}.tgz?key=${secret:db}",
        destination="${JOB_NAME}/",
    ) == (
        WantedArtifact(
            source="https://me:hunter2@x/eu/${y}.tgz?key=hunter2",
            shown="https://x/${NODE_REGION}/$${y}.tgz",
            checksum="sha256:0",
            destination="web/",
        ),
    )


def test_an_unknown_variable_or_secret_of_an_artifact_is_named() -> None:
    with pytest.raises(NotStartable, match=r"artifacts\.source: \$\{NOPE\} is no variable"):
        artifacts_of(source="https://x/${NOPE}")
    with pytest.raises(NotStartable, match=r"artifacts\.destination: \$\{NOPE\}"):
        artifacts_of(destination="${NOPE}")
    with pytest.raises(SecretMissing, match="other"):
        artifacts_of(source="https://x/${secret:other}")


def test_a_file_of_addresses_that_are_not_known_is_not_written() -> None:
    with pytest.raises(NotStartable, match="addresses of shop are not known yet"):
        files_of(a_group(tasks=(a_task(files=(TaskFile(path="up.conf", services=("shop",)),)),)))


@pytest.mark.parametrize(
    "task",
    [
        a_task(env={"A": SecretValue(secret="db")}),
        a_task(env={"A": "pg://${secret:db}@x"}),
        a_task(artifacts=(Artifact(source="https://me:${secret:db}@x/y", checksum="sha256:0"),)),
        a_task(config=TaskConfig(command=("run", "${secret:db}"))),
        a_task(config=TaskConfig(image="x", entrypoint=("run", "${secret:db}"))),
        a_task(config=TaskConfig(image="x", auth={"username": "me", "password": {"secret": "db"}})),
        a_task(config=TaskConfig(image="x", auth={"username": "me", "password": "${secret:db}"})),
        a_task(files=(TaskFile(path="a", content="${secret:db}"), TaskFile(path="b", secret="gone"))),
    ],
)
def test_what_a_task_says_leaves_out_its_secrets(task: Task) -> None:
    assert without_secrets("login with hunter2 failed", task, SECRETS) == "login with (secret) failed"
    assert without_secrets("login with hunter2 failed", a_task(), SECRETS) == "login with hunter2 failed"


@pytest.fixture
def age(tmp_path: Path) -> AgeKey:
    key = open_age_key(tmp_path / "age.key", is_wanted=True)
    assert key is not None
    return key


def encrypted(key: AgeKey, text: str) -> str:
    recipient = pyrage.x25519.Recipient.from_str(key.recipient)
    armored: bytes = pyrage.encrypt(text.encode(), [recipient], armored=True)
    return armored.decode()


def test_what_is_encrypted_with_age(age: AgeKey) -> None:
    """In env, files and the password of a registry, as a secret of the node; a file has mode 0600."""
    secret = encrypted(age, "hunter2")
    task = a_task(
        driver="docker",
        env={"A": SecretValue(age=secret)},
        files=(TaskFile(path="local/key", age=secret),),
        config=TaskConfig(image="x", auth={"username": "me", "password": {"age": secret}}),
    )
    assignment, secrets = assigned(task), SecretsFolder(None, age)
    launch = build_launch(assignment, task, 1, NODE, FOLDERS, None, secrets)
    assert launch.environment["A"] == "hunter2"
    assert launch.config.auth == {"username": "me", "password": "hunter2"}
    (file,) = build_files(assignment, task, NODE, FOLDERS, secrets)
    assert (file.path, file.content, file.mode) == ("local/key", "hunter2", 0o600)
    assert without_secrets("said hunter2", task, secrets) == "said (secret)"


def test_what_this_node_cannot_decrypt_says_where_it_stands(age: AgeKey) -> None:
    task = a_task(env={"A": SecretValue(age="x")}, files=(TaskFile(path="local/key", age="x"),))
    assignment, secrets = assigned(task), SecretsFolder(None, age)
    with pytest.raises(SecretMissing, match=r"env\.A: .* cannot be decrypted on this node"):
        build_launch(assignment, task, 1, NODE, FOLDERS, ME, secrets)
    with pytest.raises(SecretMissing, match=r"files: local/key: .* cannot be decrypted on this node"):
        build_files(assignment, task, NODE, FOLDERS, secrets)
