"""Clients whose posts have one possible outcome: each key's numbers from 0 on, in order, each once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

import requests

TIMEOUT_S = 5.0
RETRY_S = 0.05


class KeyedClients:
    """Post numbers key by key, each client its own keys and to one address, until they are stopped. A post that fails is
    sent again to the same address under the same id, until it is accepted."""

    def __init__(self, urls: Sequence[str], *, keys: int, clients: int, pause_s: float = 0) -> None:
        self.urls = list(urls)
        """By client, over and over; may be changed at any time."""
        self.sent: Counter[str] = Counter()
        """Posts by key that were accepted."""
        self.accepted: Counter[int] = Counter()
        """Posts by place in `urls` that were accepted."""
        self.retries = 0
        self._pause_s = pause_s
        self._stop, self._give_up = threading.Event(), threading.Event()
        names = [f"key-{key}" for key in range(keys)]
        self._threads = [
            threading.Thread(target=self._work, args=(number, names[number::clients]), daemon=True)
            for number in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self, patience_s: float = 60) -> None:
        """Begin no more posts, and wait until those under way are accepted."""
        self._stop.set()
        for thread in self._threads:
            thread.join(patience_s)
        under_way = sum(thread.is_alive() for thread in self._threads)
        assert not under_way, f"{under_way} posts were not accepted within {patience_s:g} s"

    def give_up(self) -> None:
        """Begin no more posts, and leave those under way to their fate."""
        self._stop.set()
        self._give_up.set()
        for thread in self._threads:
            thread.join(2 * TIMEOUT_S)

    def _work(self, number: int, keys: Sequence[str]) -> None:
        with requests.Session() as session:
            while True:
                for key in keys:
                    if self._stop.wait(self._pause_s):
                        return
                    place = number % len(self.urls)
                    while not self._post(session, self.urls[place], key):
                        self.retries += 1
                        if self._give_up.wait(RETRY_S):
                            return
                    self.sent[key] += 1
                    self.accepted[place] += 1

    def _post(self, session: requests.Session, url: str, key: str) -> bool:
        n = self.sent[key]
        headers = {"Idempotency-Key": f"{key}/{n}"}
        try:
            return session.post(url, json={"k": key, "n": n}, headers=headers, timeout=TIMEOUT_S).status_code == 200
        except requests.RequestException:
            return False
