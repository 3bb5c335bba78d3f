"""A Celery application on a broker of files below BROKER; with FREEZE the worker freezes its heap before it forks."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from celery import Celery
from celery.signals import worker_init
from serving import block, facts, guard

folder = Path(os.environ["BROKER"])
for name in ("messages", "control", "results"):
    (folder / name).mkdir(exist_ok=True)

app = Celery("celery_app", broker="filesystem://", backend=f"file://{folder}/results")
app.conf.broker_transport_options = {
    "data_folder_in": str(folder / "messages"),
    "data_folder_out": str(folder / "messages"),
    "control_folder": str(folder / "control"),
}
app.conf.worker_prefetch_multiplier = 1


@app.task
def who() -> dict[str, object]:
    return facts()


@app.task
def blocked(flag: str) -> dict[str, object]:
    block(flag)
    return facts()


@app.task
def counted(letters: str) -> dict[str, object]:
    with guard.model("counter", load=Counter, isolate=True) as counter:
        counter.update(letters)
        return {**facts(), "most": counter.most_common(1)}


if os.environ.get("FREEZE"):

    @worker_init.connect
    def freeze(**_: Any) -> None:
        guard.freeze_before_fork()
