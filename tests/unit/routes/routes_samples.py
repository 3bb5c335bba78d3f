"""Configuration files, whole and broken: what is to be said of them, here and by Alertmanager."""

MINIMAL = (
    "route: {receiver: hook}\nreceivers: [{name: hook, webhook_configs: [{url: 'http://127.0.0.1:1/'}]}]\n"
)


def with_route(extra):
    """The minimal file with more in its root route."""
    return MINIMAL.replace("{receiver: hook}", "{receiver: hook, " + extra + "}")


def with_child(route):
    """The minimal file with a route below the root."""
    return with_route("routes: [" + route + "]")


def with_webhook(extra):
    """The minimal file with more in its webhook."""
    return MINIMAL.replace("{url: 'http://127.0.0.1:1/'}", "{url: 'http://127.0.0.1:1/', " + extra + "}")


def with_interval(interval):
    """The minimal file with a time interval."""
    return MINIMAL + "time_intervals: [{name: t, time_intervals: [" + interval + "]}]\n"


GOOD = {
    "minimal": MINIMAL,
    "no webhooks": "route: {receiver: none}\nreceivers: [{name: none}]\n",
    "receiver as a number": "route: {receiver: 1}\nreceivers: [{name: 1}]\n",
    "empty global": MINIMAL + "global:\n",
    "global": MINIMAL + "global: {resolve_timeout: 1h30m, http_config: {follow_redirects: false}}\n",
    "templates": MINIMAL + "templates: ['*.tmpl']\n",
    "all waits": with_route("group_wait: 0s, group_interval: 1s, repeat_interval: 1y2w3d4h5m6s7ms"),
    "zero wait": with_route("group_wait: 0"),
    "null wait": with_route("group_wait: null"),
    "group by": with_route("group_by: [alertname, instance]"),
    "group by everything": with_route("group_by: ['...']"),
    "group by nothing": with_route("group_by: []"),
    "everything twice": with_route("group_by: ['...', '...']"),
    "matchers": with_child('{matchers: [\'a="b"\', c=~d|e, "{f!=g, h!~\\"i\\"}"]}'),
    "matchers with spaces": with_child("{matchers: [' a  =  b c ', 'd = ']}"),
    "empty matcher list": with_child("{matchers: []}"),
    "match": with_child("{match: {a: b, c: 1}, match_re: {d: e.*, f: ''}}"),
    "colon in a matcher's name": with_child("{matchers: ['a:b=c']}"),
    "continue yes": with_child("{match: {a: b}, continue: yes}"),
    "continue On": with_child("{match: {a: b}, continue: On}"),
    "nested": with_child("{match: {a: b}, group_by: [x], routes: [{match: {c: d}, receiver: hook}]}"),
    "null routes": with_route("routes: null"),
    "send_resolved": with_webhook("send_resolved: false, max_alerts: 5"),
    "authorization": with_webhook("http_config: {authorization: {credentials: abc}}"),
    "authorization from a file": with_webhook(
        "http_config: {authorization: {type: Token, credentials_file: f}}"
    ),
    "authorization without credentials": with_webhook("http_config: {authorization: {type: Token}}"),
    "basic auth": with_webhook("http_config: {basic_auth: {username: u, password: p}}"),
    "basic auth from a file": with_webhook("http_config: {basic_auth: {username: u, password_file: p}}"),
    "bearer token": with_webhook("http_config: {bearer_token: abc}"),
    "bearer token from a file": with_webhook("http_config: {bearer_token_file: abc}"),
    "tls": with_webhook(
        "http_config: {tls_config: {server_name: x, insecure_skip_verify: true, min_version: TLS12}}"
    ),
    "http 2": with_webhook("http_config: {enable_http2: false}"),
    "no http config": with_webhook("http_config: null"),
    "inhibit": MINIMAL
    + "inhibit_rules: [{source_matchers: [a=b], target_matchers: ['c=~d'], equal: [e]}, {}, "
    + "{source_match: {a: b}, source_match_re: {c: d}, target_match: {e: f}, target_match_re: {g: h}}]\n",
    "intervals": with_interval(
        "{times: [{start_time: '00:00', end_time: '24:00'}], weekdays: [Monday:friday, sunday], "
        "days_of_month: ['1:5', '-3:-1', '1:-1', 31], months: [january:MARCH, '5', '6:8', 13], "
        "years: ['2020:2022', 2030], location: Europe/Berlin}"
    ),
    "empty interval": with_interval("{}"),
    "interval of nothing": with_interval("{weekdays: []}"),
    "interval in UTC": with_interval("{location: UTC}, {location: ''}, {location: Local}"),
    "muted": with_child("{match: {a: b}, mute_time_intervals: [t], active_time_intervals: [u]}")
    + "mute_time_intervals: [{name: t, time_intervals: []}]\ntime_intervals: [{name: u}]\n",
    "interval that nothing uses": MINIMAL + "time_intervals: [{name: t}]\n",
    "anchors": "x: &a\n".replace("x: &a\n", "")
    + "route: {receiver: &r hook}\nreceivers: [{name: *r, webhook_configs: [{url: 'http://127.0.0.1:1/'}]}]\n",
    "url with a user": MINIMAL.replace("http://", "http://u:p@"),
    "url with IPv6": MINIMAL.replace("127.0.0.1", "[::1]"),
    "send_resolved null": with_webhook("send_resolved: null, max_alerts: null"),
}
"""Accepted by both."""

BAD = {
    "no route": "receivers: [{name: hook}]\n",
    "null route": "route:\nreceivers: [{name: hook}]\n",
    "unknown key": MINIMAL + "rout: 1\n",
    "unknown key in a route": with_route("group_bye: [a]"),
    "unknown key in a webhook": with_webhook("uri: x"),
    "unknown key in http_config": with_webhook("http_config: {x: 1}"),
    "unknown key in a receiver": MINIMAL.replace("name: hook,", "name: hook, x: 1,"),
    "unknown key in global": MINIMAL + "global: {x: 1}\n",
    "a list": "- a\n",
    "broken YAML": "route: {receiver: hook\n",
    "a key twice": MINIMAL + "templates: []\ntemplates: []\n",
    "root without receiver": MINIMAL.replace("route: {receiver: hook}", "route: {group_by: [a]}"),
    "root with matchers": with_route("matchers: [a=b]"),
    "root with match": with_route("match: {a: b}"),
    "root with continue": with_route("continue: true"),
    "root with intervals": with_route("mute_time_intervals: [t]") + "time_intervals: [{name: t}]\n",
    "undefined receiver": with_child("{receiver: nobody}"),
    "undefined interval": with_child("{mute_time_intervals: [nothing]}"),
    "undefined active interval": with_child("{active_time_intervals: [nothing]}"),
    "receiver twice": "route: {receiver: a}\nreceivers: [{name: a}, {name: a}]\n",
    "receiver without a name": "route: {receiver: a}\nreceivers: [{name: a}, {webhook_configs: []}]\n",
    "interval twice": MINIMAL + "time_intervals: [{name: t}]\nmute_time_intervals: [{name: t}]\n",
    "interval without a name": MINIMAL + "time_intervals: [{time_intervals: []}]\n",
    "group_by with a bad name": with_route("group_by: [a-b]"),
    "group_by twice": with_route("group_by: [a, a]"),
    "group_by everything and more": with_route("group_by: [a, '...']"),
    "group_by text": with_route("group_by: a"),
    "zero interval": with_route("group_interval: 0s"),
    "zero repeat": with_route("repeat_interval: 0"),
    "bad duration": with_route("group_wait: 5 minutes"),
    "duration backwards": with_route("group_wait: 5s1h"),
    "empty duration": with_route("group_wait: ''"),
    "negative duration": with_route("group_wait: -1s"),
    "endless duration": with_route("group_wait: 300y"),
    "bare number": with_route("group_wait: 30"),
    "fraction": with_route("group_wait: 1.5s"),
    "matcher without an operator": with_child("{matchers: [a]}"),
    "matcher with a bad name": with_child("{matchers: ['a-b=c']}"),
    "matcher with an inner quote": with_child("{matchers: ['a=b\"c']}"),
    "matcher with an open quote": with_child("{matchers: ['a=\"b']}"),
    "matcher with nothing": with_child("{matchers: ['a=b,,c=d']}"),
    "matchers text": with_child("{matchers: a=b}"),
    "match with a bad name": with_child("{match: {a-b: c}}"),
    "match_re with a bad pattern": with_child("{match_re: {a: '('}}"),
    "look-ahead": with_child("{matchers: ['a=~\"(?=x)\"']}"),
    "back-reference": with_child("{match_re: {a: '(x)\\\\1'}}".replace("\\\\", "\\")),
    "possessive": with_child("{match_re: {a: x++}}"),
    "quoted boolean": with_child("{match: {a: b}, continue: 'true'}"),
    "no boolean": with_child("{match: {a: b}, continue: maybe}"),
    "boolean by number": with_child("{match: {a: b}, continue: 1}"),
    "webhook without url": "route: {receiver: a}\nreceivers: [{name: a, webhook_configs: [{send_resolved: true}]}]\n",
    "url without scheme": MINIMAL.replace("http://127.0.0.1:1/", "127.0.0.1"),
    "url of another scheme": MINIMAL.replace("http:", "ftp:"),
    "url without host": MINIMAL.replace("127.0.0.1:1", ""),
    "url with a bad port": MINIMAL.replace("127.0.0.1:1", "127.0.0.1:x"),
    "max_alerts negative": with_webhook("max_alerts: -1"),
    "max_alerts text": with_webhook("max_alerts: many"),
    "two credentials": with_webhook("http_config: {authorization: {credentials: a, credentials_file: b}}"),
    "two passwords": with_webhook("http_config: {basic_auth: {username: u, password: p, password_file: f}}"),
    "two kinds": with_webhook("http_config: {authorization: {credentials: a}, basic_auth: {username: u}}"),
    "two tokens": with_webhook("http_config: {bearer_token: a, bearer_token_file: b}"),
    "basic as a type": with_webhook("http_config: {authorization: {type: Basic, credentials: a}}"),
    "bad TLS version": with_webhook("http_config: {tls_config: {min_version: TLS9}}"),
    "inhibit with a bad name": MINIMAL + "inhibit_rules: [{equal: [a-b]}]\n",
    "inhibit with a bad pattern": MINIMAL + "inhibit_rules: [{source_match_re: {a: '['}}]\n",
    "inhibit with an unknown key": MINIMAL + "inhibit_rules: [{sources: []}]\n",
    "time backwards": with_interval("{times: [{start_time: '10:00', end_time: '09:00'}]}"),
    "time without end": with_interval("{times: [{start_time: '10:00'}]}"),
    "time out of range": with_interval("{times: [{start_time: '10:00', end_time: '25:00'}]}"),
    "weekday unknown": with_interval("{weekdays: [mon]}"),
    "weekdays backwards": with_interval("{weekdays: ['friday:monday']}"),
    "day zero": with_interval("{days_of_month: [0]}"),
    "day 32": with_interval("{days_of_month: ['1:32']}"),
    "days from negative to positive": with_interval("{days_of_month: ['-1:1']}"),
    "days backwards": with_interval("{days_of_month: ['5:1']}"),
    "negative days backwards": with_interval("{days_of_month: ['-1:-3']}"),
    "months backwards": with_interval("{months: ['march:january']}"),
    "month unknown": with_interval("{months: [janvier]}"),
    "years backwards": with_interval("{years: ['2022:2020']}"),
    "year text": with_interval("{years: [soon]}"),
    "nowhere": with_interval("{location: Europe/Atlantis}"),
    "interval with an unknown key": with_interval("{days: [1]}"),
}
"""Refused by both."""

OURS = {
    "url from a file": (
        True,
        with_webhook("x: 1").replace("url: 'http://127.0.0.1:1/', x: 1", "url_file: f"),
    ),
    "timeout": (True, with_webhook("timeout: 5s")),
    "no timeout": (True, with_webhook("timeout: 0s")),
    "e-mail": (
        False,
        MINIMAL.replace(
            "name: hook,", "name: hook, email_configs: [{to: a@b.c, from: a@b.c, smarthost: 'h:25'}],"
        ),
    ),
    "slack": (
        False,
        MINIMAL.replace("name: hook,", "name: hook, slack_configs: [{api_url: 'http://127.0.0.1/'}],"),
    ),
    "smtp": (False, MINIMAL + "global: {smtp_from: a@b.c}\n"),
    "proxy": (False, with_webhook("http_config: {proxy_url: 'http://127.0.0.1:1'}")),
    "oauth2": (
        False,
        with_webhook(
            "http_config: {oauth2: {client_id: a, client_secret: b, token_url: 'http://127.0.0.1/'}}"
        ),
    ),
    "certificate without key": (False, with_webhook("http_config: {tls_config: {cert_file: a}}")),
}
"""Where this differs from Alertmanager 0.25: newer keys that it does not know, and what needs Alertmanager."""
