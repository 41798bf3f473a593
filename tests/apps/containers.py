"""Containers without an engine: a container is a process of this machine. Processes and logs are in $DOCKER_STATE."""

import os
import signal
import subprocess
import time

STATE = os.environ["DOCKER_STATE"]


def place(name, kind):
    return os.path.join(STATE, f"{name}.{kind}")


def pid_of(name):
    try:
        pid = int(open(place(name, "pid")).read())
        os.kill(pid, 0)
        return pid
    except (OSError, ValueError):
        return None


def stop(name):
    """SIGTERM, and gone when this returns."""
    pid = pid_of(name)
    if pid is None:
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}") and open(f"/proc/{pid}/stat").read().rsplit(") ", 1)[1][0] != "Z":
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    os.remove(place(name, "pid"))
    print(f"Container {name} Stopped")


def start(name, command, environment):
    """In the place of one that runs under this name."""
    stop(name)
    log = open(place(name, "log"), "w")
    child = subprocess.Popen(command, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                             start_new_session=True)
    with open(place(name, "pid"), "w") as file:
        file.write(str(child.pid))
    print(f"Container {name} Started")
