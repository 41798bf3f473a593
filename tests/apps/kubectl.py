"""A stand-in for `kubectl`, so that vcci's example runs where no cluster does: a pod is a process of this machine.

$KUBECTL_PODS says which pods a Deployment can have: `vcci-blue=127.0.0.1:19101,127.0.0.1:19102 …`; each listens there. It knows what the
example's hooks say: `set image`, `scale`, `logs`, `port-forward`, and a Job's `create`, `wait` and `delete`. All else is an error.
"""

import json
import os
import sys
import time

from containers import STATE, pid_of, place, start, stop

PODS = {name: pods.split(",") for name, pods in (entry.split("=") for entry in os.environ["KUBECTL_PODS"].split())}
APP = os.environ["KUBECTL_APP"].split()


def spec(name):
    """What the API server would know of a Deployment."""
    try:
        return json.load(open(os.path.join(STATE, f"{name}.json")))
    except FileNotFoundError:
        return {"image": "none", "replicas": 0}


def reconcile(name, wanted):
    before = spec(name)
    with open(os.path.join(STATE, f"{name}.json"), "w") as file:
        json.dump(wanted, file)
    for at, address in enumerate(PODS[name]):
        pod = f"{name}-{at}"
        if at >= wanted["replicas"]:
            stop(pod)
        elif pid_of(pod) is None or before["image"] != wanted["image"]:
            host, port = address.rsplit(":", 1)
            environment = {"COLOR": name.rsplit("-", 1)[1], "REVISION": wanted["image"].rsplit(":", 1)[1], "HOST": host, "PORT": port}
            start(pod, APP, environment)


def deployment(text):
    kind, _, name = text.partition("/")
    if kind != "deployment" or name not in PODS:
        sys.exit(f'Error from server (NotFound): "{text}" not found')
    return name


def option(args, name):
    """The value of `--name value` or `--name=value`, taken out of the arguments."""
    for at, arg in enumerate(args):
        if arg == name:
            value = args[at + 1]
            del args[at:at + 2]
            return value
        if arg.startswith(f"{name}="):
            del args[at]
            return arg.partition("=")[2]
    return None


def forward(name, port):
    """The pod listens on this machine: there is nothing to forward, only to say."""
    local, _, remote = port.rpartition(":")
    assert local == "", "the example asks for any local port"
    address = next((a for at, a in enumerate(PODS[name]) if pid_of(f"{name}-{at}")), None)
    if address is None:
        sys.exit(f"error: unable to forward port because deployment/{name} has no running pod")
    print(f"Forwarding from {address} -> {remote}", flush=True)
    while True:
        time.sleep(3600)


def main(args):
    match args:
        case ["set", "image", target, image]:
            name = deployment(target)
            reconcile(name, {**spec(name), "image": image.partition("=")[2]})
            print(f"{target} image updated")
        case ["scale", target, *rest]:
            name = deployment(target)
            reconcile(name, {**spec(name), "replicas": int(option(rest, "--replicas"))})
            print(f"{target} scaled")
        case ["logs", target, *_]:
            sys.stdout.write(open(place(f"{deployment(target)}-0", "log")).read())
        case ["port-forward", target, port]:
            forward(deployment(target), port)
        case ["delete", "job", name, "--ignore-not-found"]:
            if os.path.exists(place(name, "job")):
                os.remove(place(name, "job"))
        case ["create", "job", name, *rest]:
            image = option(rest, "--image")
            with open(place(name, "job"), "x") as file:  # as the real one: a second of this name is refused
                file.write(image)
            print(f"job.batch/{name} created: {image} {' '.join(rest[1:])}")
        case ["wait", "--for=condition=complete", target, *_]:
            assert os.path.exists(place(target.partition("/")[2], "job")), f"{target} not found"
            print(f"{target} condition met")
        case _:
            sys.exit(f"kubectl stand-in: this is not known: {' '.join(args)}")


main(sys.argv[1:])
