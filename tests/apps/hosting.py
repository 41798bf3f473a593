"""A stand-in for the command of whoever hosts mina: `hosting push|stop|logs|migrate COPY [REVISION]`. A hosted copy is a process of this
machine that speaks TLS under its own name; $HOSTING_COPIES says where: `blue=mina.localhost:7001 …`, certificates are in $HOSTING_CERTS.
"""

import os
import sys

from containers import STATE, place, start, stop

COPIES = dict(entry.split("=") for entry in os.environ["HOSTING_COPIES"].split())
APP = os.environ["HOSTING_APP"].split()


def push(copy, revision):
    name, port = COPIES[copy].rsplit(":", 1)
    certificate = os.path.join(os.environ["HOSTING_CERTS"], copy)
    start(copy, APP, {
        "COLOR": copy, "REVISION": revision, "HOST": "127.0.0.1", "PORT": port, "OWN_NAME": name,
        "TLS_CERT": f"{certificate}.pem", "TLS_KEY": f"{certificate}.key",
    })
    with open(os.path.join(STATE, f"{copy}.revision"), "w") as file:
        file.write(revision)


match sys.argv[1:]:
    case ["push", copy, revision]:
        push(copy, revision)
    case ["stop", copy]:
        stop(copy)
    case ["migrate", copy]:
        print(f"{copy}: the shared database is migrated")
    case ["logs", copy]:
        sys.stdout.write(open(place(copy, "log")).read())
    case args:
        sys.exit(f"hosting stand-in: this is not known: {' '.join(args)}")
