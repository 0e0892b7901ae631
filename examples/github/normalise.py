"""One plain row for each GitHub event: repository, actor, kind, action, time."""

from patterns import Table

payloads = Table("payloads")
events = Table("events", "w")

# GitHub names the kind of an event in a header. A payload shows it too: by the keys that only this kind has.
# Particular kinds stand before general ones (a comment on an issue holds the issue as well).
KINDS = [
    ("push", {"pusher", "commits"}),
    ("issue_comment", {"issue", "comment"}),
    ("issues", {"issue"}),
    ("pull_request_review_comment", {"pull_request", "comment"}),
    ("pull_request_review", {"pull_request", "review"}),
    ("pull_request", {"pull_request"}),
    ("release", {"release"}),
    ("workflow_run", {"workflow_run"}),
    ("fork", {"forkee"}),
    ("star", {"starred_at"}),
    ("create", {"ref_type", "master_branch"}),
    ("delete", {"ref_type"}),
]

# What an event is about, and the names under which it says when.
SUBJECTS = ["comment", "review", "issue", "pull_request", "release", "workflow_run", "forkee", "head_commit"]
TIMES = ["updated_at", "submitted_at", "published_at", "starred_at", "timestamp"]


def kind_of(payload):
    return next((kind for kind, keys in KINDS if keys <= payload.keys()), "other")


def time_of(payload):
    subject = next((payload[name] for name in SUBJECTS if payload.get(name)), payload)
    return next((subject[name] for name in TIMES if subject.get(name)), None)


for row in payloads.as_stream():
    payload = row["record"]
    events.append(
        {
            "repository": payload.get("repository", {}).get("full_name"),
            "actor": payload.get("sender", {}).get("login"),
            "kind": kind_of(payload),
            "action": payload.get("action"),
            "time": time_of(payload) or row["timestamp"],
        }
    )
