#!/usr/bin/env python3
"""Posts real GitHub payloads to the webhook of this example, as GitHub would.

    .venv/bin/python examples/github/send.py
    .venv/bin/python examples/github/send.py --count 500 --rate 50
"""

import argparse
import gzip
import itertools
import json
import subprocess
import sys
import time
import uuid
from pathlib import Path

import requests
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

PAYLOADS = Path(__file__).with_name("payloads.json.gz")
APP = "github"


def main() -> None:
    options = arguments()
    deliveries = json.loads(gzip.decompress(PAYLOADS.read_bytes()))
    count = len(deliveries) if options.count is None else options.count
    url = options.url or webhook_url(options.data)
    session = requests.Session()
    session.trust_env = False  # a proxy of the environment is no way to this machine
    columns = (TextColumn("posting"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    began = time.monotonic()
    with Progress(*columns) as progress:
        task = progress.add_task("", total=count)
        for number, delivery in enumerate(itertools.islice(itertools.cycle(deliveries), count)):
            if options.rate:
                time.sleep(max(0.0, began + number / options.rate - time.monotonic()))
            post(session, url, delivery)
            progress.advance(task)
    print(f"{count} payloads accepted by {url}")


def post(session: requests.Session, url: str, delivery: dict) -> None:
    """Post one payload; a webhook that is busy (503) is asked again when it says."""
    headers = {"X-GitHub-Event": delivery["event"], "X-GitHub-Delivery": str(uuid.uuid4())}
    for _ in range(10):
        try:
            answer = session.post(url, json=delivery["payload"], headers=headers, timeout=60)
        except requests.RequestException as error:
            sys.exit(f"error: {url} does not answer ({type(error).__name__}): is `tailrace up` running?")
        if answer.status_code != 503:
            break
        time.sleep(float(answer.headers.get("Retry-After", "1")))
    if answer.status_code != 200:
        sys.exit(f"error: {url} answered {answer.status_code}: {answer.text[:300]}")


def webhook_url(data: str | None) -> str:
    """The URL that the running `tailrace up` gave to the webhook."""
    command = [sys.executable, "-m", "tailrace.cli", "webhooks", "--json", "--app", APP]
    asked = subprocess.run([*command, *(["--data", data] if data else [])], stdout=subprocess.PIPE, text=True)
    if asked.returncode != 0:
        sys.exit(asked.returncode)
    found = json.loads(asked.stdout)
    if not found:
        sys.exit(f"error: the running `tailrace up` has no app {APP!r} with a webhook; give --url")
    return found[0]["url"]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Post real GitHub payloads to the webhook of this example.")
    parser.add_argument("--url", help="the webhook's URL; else the running `tailrace up` is asked")
    parser.add_argument("--data", help="data folder of the running `tailrace up`")
    parser.add_argument("--count", type=int, help="how many, over and over; else each payload once")
    parser.add_argument("--rate", type=float, help="posts a second at most; else as fast as they are accepted")
    return parser.parse_args()


if __name__ == "__main__":
    main()
