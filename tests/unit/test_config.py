import pytest

from oomguard.config import Settings, load, parse_listen
from oomguard.errors import ConfigError
from oomguard.sizes import Threshold


def written(tmp_path, text):
    file = tmp_path / "oomguard.yml"
    file.write_text(text)
    return file


def problems(*arguments, **named):
    with pytest.raises(ConfigError) as caught:
        load(*arguments, **named)
    return [str(problem) for problem in caught.value.problems]


def test_without_anything_the_defaults_hold():
    assert load({}, {}) == Settings()


def test_a_flag_wins_over_the_environment_which_wins_over_the_file(tmp_path):
    file = written(tmp_path, "limit: 1GiB\ntarget: file\nlog: {level: error}\n")
    settings = load({"limit": "3GiB"}, {"OOMGUARD_LIMIT": "2GiB", "OOMGUARD_TARGET": "env"}, file)
    assert (settings.limit, settings.target, settings.log_level) == (3 << 30, "env", "error")


def test_names_that_people_already_use_are_read_and_ours_win():
    env = {
        "MEMORY_LIMIT_MB": "512",
        "MEMORY_CLEANUP": "0",
        "MEMORY_CLEANUP_THRESHOLD_MB": "400",
        "LOG_LEVEL": "DEBUG",
    }
    settings = load({}, env)
    assert settings.high == Threshold(ratio=0.8), (
        "that one is the hook's: from where on it cleans by the clock"
    )
    assert settings.limit == 512 << 20
    assert settings.act is False
    assert settings.log_level == "debug"
    assert load({}, {**env, "OOMGUARD_LIMIT": "1GiB"}).limit == 1 << 30
    lower = load({"high": "400MiB"}, env)
    assert lower.thresholds(512 << 20)["goal"] == 350 << 20, (
        "a goal that nobody set follows a lower threshold"
    )


@pytest.mark.parametrize(
    ("value", "level"), [("WARN", "warning"), ("CRITICAL", "error"), ("20", "info"), ("TRACE", "debug")]
)
def test_the_applications_own_log_level_never_keeps_it_from_starting(value, level):
    assert load({}, {"LOG_LEVEL": value}).log_level == level


def test_a_limit_of_a_few_bytes_is_a_forgotten_unit():
    assert problems({"limit": "512"}, {}) == [
        "--limit: '512' alone would be bytes; write 512MiB, or a part of the box: 80%"
    ]


def test_a_percentage_is_a_limit_of_the_box():
    assert load({"limit": "80%"}, {}).limit_ratio == 0.8


def test_every_mistake_is_told_at_once_with_its_place(tmp_path):
    file = written(
        tmp_path, "limit: huge\nthresholds:\n  high: 80%\n  hihg: 90%\nlisten: nowhere\ntarget: [a]\n"
    )
    told = problems({"critical": "120%"}, {"OOMGUARD_LOG_LEVEL": "loud"}, file)
    assert [line.split(": ")[0] for line in told] == [
        f"{file}:1",
        f"{file}:4",
        f"{file}:5",
        f"{file}:6",
        "OOMGUARD_LOG_LEVEL",
        "--critical",
    ]
    assert "thresholds.high" in told[1], "an unknown setting names those that there are"


def test_thresholds_in_the_wrong_order_are_a_mistake():
    assert problems({"goal": "85%"}, {}) == ["--goal: goal (85%) must lie below high (80%)"]
    assert problems({"limit": "1GiB", "high": "950MiB"}, {}) == [
        "--high: high (950.0 MiB) must lie below critical (90%)"
    ]


def test_a_goal_that_nobody_set_lies_at_70_percent():
    assert load({}, {}).thresholds(1000) == {"high": 800, "critical": 900, "goal": 700}


def test_sizes_and_ratios_are_compared_only_when_the_limit_is_known():
    assert load({"high": "950MiB"}, {}).high == Threshold(size=950 << 20)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: b: c", 1, "YAML"),
        ("x\n", 1, "keys and values"),
        ("- 1\n", 1, "keys and values"),
        ("limit: 1GiB\nlimit: 2GiB\n", 2, "second time"),
        ("log: 3\n", 1, "'log' must hold"),
        ("\tlimit: 1\n", 1, "YAML"),
    ],
)
def test_a_file_that_is_not_a_configuration_is_told_with_its_line(tmp_path, text, line, words):
    file = written(tmp_path, text)
    (told,) = problems({}, {}, file)
    assert told.startswith(f"{file}:{line}: ")
    assert words in told


def test_a_file_that_cant_be_read_is_told(tmp_path):
    assert problems({}, {}, tmp_path / "none.yml") == [
        f"{tmp_path}/none.yml: can't be read: no such file or directory"
    ]
    binary = tmp_path / "binary.yml"
    binary.write_bytes(b"\xff\xfe\x00")
    (told,) = problems({}, {}, binary)
    assert "UTF-8" in told


def test_an_empty_file_is_no_mistake(tmp_path):
    file = written(tmp_path, "# nothing yet\n")
    assert load({}, {}, file) == Settings(file=str(file))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10512", "127.0.0.1:10512"),
        (":9000", "0.0.0.0:9000"),
        ("localhost:0", "localhost:0"),
        ("[::1]:80", "[::1]:80"),
    ],
)
def test_addresses_are_read_as_people_write_them(text, address):
    assert parse_listen(text) == address


@pytest.mark.parametrize("text", ["", "host", "host:", "host:99999", "host:x"])
def test_what_is_not_an_address_is_refused(text):
    with pytest.raises(ValueError, match="not an address"):
        parse_listen(text)


def test_settings_travel_as_json():
    settings = load({"limit": "1GiB", "high": "800MiB", "target": 'it\'s "here"'}, {})
    assert Settings.from_json(settings.to_json()) == settings
