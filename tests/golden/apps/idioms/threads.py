from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from patterns import State, Table

numbers, out = Table("numbers"), Table("out", "w")
lock = Lock()


def work(record):
    with lock:
        out.append({"step": 100, "n": record["n"] * 2})
    return record["n"]


State().reset()
records = list(numbers.as_stream())
with ThreadPoolExecutor(4) as pool:
    assert sorted(pool.map(work, records)) == list(range(12))
with ThreadPoolExecutor(2) as pool:
    assert len(list(pool.map(lambda _: numbers.read(), range(4)))[3]) == 12
