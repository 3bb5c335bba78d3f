import pytest

from oomguard.actions import STEP_NAMES
from oomguard.broker.wishes import Action, Declined, Wish, wish_of
from oomguard.errors import UserError
from oomguard.model import Alert
from oomguard.sizes import Threshold


def alert(ends_at=None, **labels):
    return Alert({"alertname": "A", **labels}, {}, 0.0, ends_at)


def test_an_alert_without_an_action_asks_for_what_the_route_is_called():
    assert wish_of(alert(), "t") == Wish("A", ("caches", "gc", "trim"))
    assert wish_of(alert(), "t", Action.UNLOAD) == Wish("A", ("models",))
    assert wish_of(alert(action="cleanup"), "t", Action.UNLOAD) == Wish("A", ("caches", "gc", "trim"))


def test_steps_and_goal_are_labels():
    assert wish_of(alert(steps="trim, caches", goal="50%"), "t") == Wish(
        "A", ("caches", "trim"), Threshold(ratio=0.5)
    )
    assert wish_of(alert(steps="all"), "t") == Wish("A", STEP_NAMES)


def test_a_step_may_be_restricted_to_one_cache_or_model():
    assert wish_of(alert(steps="models:jina-v3,caches:bulk"), "t").steps == ("caches:bulk", "models:jina-v3")
    assert wish_of(alert(steps="caches:bulk,caches,gc"), "t").steps == ("caches", "gc"), (
        "the whole has the part"
    )


def test_an_alert_that_asks_to_unload_and_is_about_one_model_asks_for_that_one():
    assert wish_of(alert(action="unload", model="all MiniLM"), "t").steps == ("models:all MiniLM",)
    assert wish_of(alert(action="unload", model="m", steps="models,gc"), "t").steps == ("gc", "models")
    assert wish_of(alert(action="cleanup", model="m"), "t").steps == ("caches", "gc", "trim")


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (alert(ends_at=5.0), Declined.RESOLVED),
        (alert(target="another"), Declined.OTHER_TARGET),
        (alert(action="notify"), Declined.NOTIFY),
        (alert(action="restart"), Declined.NOT_ALLOWED),
    ],
)
def test_what_asks_for_nothing_says_why(told, reason):
    assert wish_of(told, "t") is reason


def test_what_is_meant_for_another_target_is_not_even_read():
    assert wish_of(alert(target="another", steps="dance"), "t") is Declined.OTHER_TARGET


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ({"steps": "caches,dance"}, "unknown step 'dance'; the steps are caches, gc, trim"),
        ({"steps": "gc:bulk"}, "unknown step 'gc:bulk'; only caches:NAME, models:NAME are restricted to one"),
        ({"steps": "caches:"}, "unknown step 'caches:'; only caches:NAME"),
        ({"action": "reboot"}, "unknown action 'reboot'; the actions are cleanup, unload, restart, notify"),
        ({"goal": "lots"}, "goal: 'lots' is not a threshold"),
    ],
)
def test_what_there_is_not_is_an_error_that_lists_what_there_is(labels, text):
    with pytest.raises(UserError, match=text.split(";")[0]) as error:
        wish_of(alert(**labels), "t")
    assert str(error.value).startswith(text)
