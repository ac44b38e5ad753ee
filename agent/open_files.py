"""Words for a lack of file descriptors: each task that runs takes one of the agent's, each connection another."""

import errno
import resource


def too_many_files(number: int) -> str:
    """What is wrong where a call failed with EMFILE or ENFILE, and what to do."""
    if number == errno.ENFILE:
        return "too many open files on this machine: raise the kernel's limit (sysctl fs.file-max)"
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        f"too many open files: this agent may have {limit} open; raise its limit (LimitNOFILE= of its unit, ulimit -n) "
        "to some hundred more than it has tasks, and start it again"
    )
