"""A stand-in for `docker compose`, so that the examples run where no engine does: a service is a process of this machine.

It reads the compose file of the folder (the part of YAML that the examples use), knows `up -d`, `stop`, `logs`, `pull` and `run`,
and gives a service the host's port as its PORT.
"""

import os
import re
import subprocess
import sys

from containers import place, start, stop


def scalar(text):
    text = text.strip()
    if text.startswith("["):
        return [scalar(part) for part in re.findall(r'"(?:[^"])*"|[^,\[\]]+', text[1:-1]) if part.strip()]
    return text.strip("\"'")


def read(path):
    """Maps by indentation, scalars and one-line lists."""
    root, stack = {}, [(-1, None)]
    stack[0] = (-1, root)
    for line in open(path):
        line = re.sub(r"(^|\s)#.*", "", line.rstrip())
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        key, _, value = line.strip().partition(":")
        while stack[-1][0] >= indent:
            stack.pop()
        if value.strip():
            stack[-1][1][key] = scalar(value)
        else:
            stack[-1][1][key] = {}
            stack.append((indent, stack[-1][1][key]))
    return root["services"]


def expand(text):
    return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", lambda m: os.environ.get(m[1]) or m[2] or "", text)


def up(name, service):
    environment = {key: expand(value) for key, value in service.get("environment", {}).items()}
    environment["PORT"] = service["ports"][0].split(":")[1]
    environment["HOST"] = "127.0.0.1"
    start(name, service["command"], environment)


def main(args):
    assert args.pop(0) == "compose", "only docker compose"
    services = read("compose.yaml")
    verb, args = args[0], args[1:]
    names = [arg for arg in args if arg in services]
    assert names, f"no such service: {args}"
    if verb == "up":
        for name in names:
            up(name, services[name])
    elif verb == "stop":
        for name in names:
            stop(name)
    elif verb == "logs":
        sys.stdout.write(open(place(names[0], "log")).read())
    elif verb == "pull":
        print("Pulled", *names)
    elif verb == "run":
        sys.exit(subprocess.run(services[names[0]]["command"], check=False).returncode)
    else:
        sys.exit(f"docker stand-in: compose {verb} is not known")


main(sys.argv[1:])
