from oomguard.config import Settings
from oomguard.level import LevelReader, choose_limit
from oomguard.model import CgroupMemory, LimitOrigin, MachineMemory, Reading, Status, UsedKind
from oomguard.state import State

MIB = 1 << 20
MACHINE = MachineMemory(8 << 30, 4 << 30, 0, 0, 0)


def cgroup(limit, path="/x"):
    return CgroupMemory(
        2, path, limit, 300 * MIB, None, None, None, 50 * MIB, 60 * MIB, 2 * MIB, None, None, None, None
    )


def test_the_cgroups_limit_is_the_limit():
    assert choose_limit(Settings(), cgroup(512 * MIB), MACHINE) == (512 * MIB, LimitOrigin.CGROUP)


def test_without_one_the_users_and_else_the_machines():
    assert choose_limit(Settings(limit=100 * MIB), cgroup(None), MACHINE) == (
        100 * MIB,
        LimitOrigin.CONFIGURED,
    )
    assert choose_limit(Settings(), cgroup(None), MACHINE) == (8 << 30, LimitOrigin.MACHINE)
    assert choose_limit(Settings(), None, None) is None


def test_a_users_limit_above_the_cgroups_does_not_lift_it():
    assert choose_limit(Settings(limit=1 << 30), cgroup(512 * MIB), MACHINE) == (
        512 * MIB,
        LimitOrigin.CGROUP,
    )
    assert choose_limit(Settings(limit=256 * MIB), cgroup(512 * MIB), MACHINE) == (
        256 * MIB,
        LimitOrigin.CONFIGURED,
    )


def test_a_percentage_is_of_the_box():
    assert choose_limit(Settings(limit_ratio=0.5), cgroup(512 * MIB), MACHINE) == (
        256 * MIB,
        LimitOrigin.CGROUP,
    )
    assert choose_limit(Settings(limit_ratio=0.5), None, MACHINE) == (4 << 30, LimitOrigin.MACHINE)


class Fast:
    def __init__(self, path="/x", values=(300 * MIB, 112 * MIB, 60 * MIB)):
        self.path = path
        self.values = values
        self.closed = False

    def read(self):
        if self.closed or self.values is None:
            raise OSError(19, "no such device")
        return self.values

    def close(self):
        self.closed = True


class Source:
    def __init__(self, fast):
        self.opened = 0
        self._fast = fast

    def fast(self):
        self.opened += 1
        return self._fast


class Rss:
    def __init__(self, pss=70 * MIB, rss=90 * MIB):
        self.values = {UsedKind.PSS: pss, UsedKind.RSS: rss}

    def update(self, processes):
        pass

    def read(self, *, kind=UsedKind.PSS):
        if self.values[kind] is None:
            raise ProcessLookupError
        return self.values[kind]

    def close(self):
        pass


def reader(settings=None, fast=None, rss=None, limit=512 * MIB):
    made = LevelReader(State("t", settings or Settings()), rss or Rss())
    made.update(Reading(Status.OK, cgroup(limit)), Source(fast or Fast()), MACHINE, ())
    return made


def test_used_is_usage_less_what_can_be_reclaimed():
    level = reader().read(1.0)
    assert (level.used, level.kind) == (188 * MIB, UsedKind.CGROUP)


def test_the_working_set_and_rss_can_be_chosen():
    assert reader(Settings(used="working_set")).read(1.0).used == 240 * MIB
    assert reader(Settings(used="rss")).read(1.0).used == 90 * MIB


def test_under_a_users_own_limit_the_trees_pss_counts():
    level = reader(Settings(limit=100 * MIB)).read(1.0)
    assert (level.used, level.kind, level.origin) == (70 * MIB, UsedKind.PSS, LimitOrigin.CONFIGURED)


def test_what_cant_be_read_is_unknown():
    assert LevelReader(State("t"), Rss()).read(1.0) is None, "before the first slow tick"
    assert reader(fast=Fast(values=None)).read(1.0) is None
    assert reader(Settings(used="rss"), rss=Rss(rss=None)).read(1.0) is None


def test_the_reader_is_opened_again_when_another_cgroup_limits():
    first = Fast()
    made = reader(fast=first)
    made.update(Reading(Status.OK, cgroup(256 * MIB, "/y")), Source(Fast("/y", (10, 0, 0))), MACHINE, ())
    assert first.closed
    assert (made.read(1.0).used, made.read(1.0).limit) == (10, 256 * MIB)


def test_the_same_cgroup_is_not_opened_twice():
    source = Source(Fast())
    made = LevelReader(State("t"), Rss())
    for _ in range(3):
        made.update(Reading(Status.OK, cgroup(512 * MIB)), source, MACHINE, ())
    assert source.opened == 1


def test_a_reading_that_failed_does_not_disarm():
    made = reader()
    made.update(Reading(Status.FAILED, reason="can't open: out of memory"), None, MACHINE, ())
    assert (made.read(1.0).limit, made.read(1.0).kind) == (512 * MIB, UsedKind.CGROUP)


def test_growth_counts_ticks_only():
    fast = Fast()
    made = reader(fast=fast)
    made.read(0.0, tick=True)
    fast.values = (310 * MIB, 112 * MIB, 0)
    made.read(0.05)
    assert made.read(0.1, tick=True).rate == 100 * MIB
    assert made.read(0.2).rate == 100 * MIB


def test_settings_that_are_reloaded_hold_from_the_next_slow_tick():
    state = State("t", Settings())
    made = LevelReader(state, Rss())
    for settings, used in ((Settings(), 188 * MIB), (Settings(used="rss"), 90 * MIB)):
        state.settings = settings
        made.update(Reading(Status.OK, cgroup(512 * MIB)), Source(Fast()), MACHINE, ())
        assert made.read(1.0).used == used


def test_beyond_a_limit_that_is_not_the_kernels_there_is_time_for_every_step():
    from oomguard.model import Level, LimitOrigin, UsedKind

    def left(used, origin, rate=100.0):
        return Level(0.0, used, 1000, origin, UsedKind.PSS, rate).seconds_left

    assert left(900, LimitOrigin.CONFIGURED) == 1.0
    assert left(1200, LimitOrigin.CONFIGURED) == float("inf"), "it was passed, and nothing killed"
    assert left(1200, LimitOrigin.CGROUP) == 0.0, "and never less"
    assert left(900, LimitOrigin.CGROUP, rate=-1.0) == float("inf")
