"""What a reload has changed outlives the sidecar, although the supervisor starts the next as it started the first."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.test_rules_act import MIB, ask, guarded, kill


def test_reloaded_thresholds_outlive_the_sidecar_and_a_file_that_breaks_later(tmp_path: Path) -> None:
    file = tmp_path / "oomguard.yml"
    file.write_text("limit: 128MiB\nthresholds: {high: 80%}\n")
    with guarded("--config", file) as running:
        file.write_text("limit: 128MiB\nthresholds: {high: 75%, goal: 50%}\n")
        assert ask(running, "POST", "/-/reload")[0] == 200
        for broken in (False, True):
            if broken:
                file.write_text("limit: 128MiB\nthresholds: {hihg: 80%}\n")
            kill(running)
            running.until_guarding(hooks=1)
            status = running.status()
            assert (status["thresholds"]["high"], status["thresholds"]["goal"]) == (96 * MIB, 64 * MIB)
            assert status["config"]["ok"] is not broken
        assert status["config"]["problems"][0].startswith(f"{file}:2: unknown setting")
