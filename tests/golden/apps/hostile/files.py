"""What a node gets to see of the machine; printed for people, nothing here must break the house."""

import os
from pathlib import Path

here = Path(__file__).resolve()
print("file", here)
data = next((each for each in here.parents if (each / "tailrace.db").exists()), None)
print("data", data)
for path in ("up.json", "tailrace.db", "lock"):
    if data is None:
        break
    try:
        text = (data / path).read_bytes()[:16]
        print(path, "readable", text)
    except OSError as error:
        print(path, "refused", error.strerror)
    try:
        with (data / path).open("ab"):
            print(path, "writable")
    except OSError as error:
        print(path, "not writable", error.strerror)
print("fds", sorted(os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")))
try:
    print("parent environment", b"GOLDEN_SECRET" in Path(f"/proc/{os.getppid()}/environ").read_bytes())
except OSError as error:
    print("parent environment refused", error.strerror)
try:
    print("own environment", b"GOLDEN_SECRET" in Path("/proc/self/environ").read_bytes())
except OSError as error:
    print("own environment refused", error.strerror)
