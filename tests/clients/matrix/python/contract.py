"""What every Python program of the client matrix shares: its command line, its answers and its records."""

import hashlib
import json
import os
import sys
import time

RECORDS = 30
COMMON_RECORDS = 60
COMMON = "matrix-common"
PARTITIONS = 3
PATIENCE_S = 20
CODECS = ("gzip", "snappy", "lz4", "zstd")


class Unsupported(Exception):
    """What this client cannot do, whoever the broker is."""


class Run:
    """What a program was started with."""

    def __init__(self, bootstrap, prefix, security):
        self.bootstrap = bootstrap
        self.prefix = prefix
        self.security = json.loads(security)

    def topic(self, feature):
        return f"{self.prefix}-{feature}"


def key(index):
    return f"key-{index}".encode()


def value(feature, index):
    return f"{feature} {index} {'x' * 200}".encode()


def line(partition, offset, key, value):
    return f"{partition} {offset} {key.decode()} {value.decode()}"


def digest(lines):
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def until(check, wanted):
    """Calls until the answer is the wanted one, for as long as patience lasts; gives the last answer."""
    end = time.monotonic() + PATIENCE_S
    while True:
        found = check()
        if found == wanted or time.monotonic() > end:
            return found
        time.sleep(0.05)


def main(features):
    run = Run(*sys.argv[1:4])
    for name in sys.argv[4:]:
        answer = {"feature": name}
        try:
            if name not in features:
                raise Unsupported("the client has no such thing")
            answer.update(outcome="ok", saw=features[name](run))
        except Unsupported as reason:
            answer.update(outcome="unsupported", error=str(reason))
        except Exception as error:
            answer.update(outcome="failed", error=f"{type(error).__name__} {error}")
        print(json.dumps(answer), flush=True)
    # Threads of a client that failed must not keep the program.
    os._exit(0)
