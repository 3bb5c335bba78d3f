"""Random PromQL over the data of `promql_data`, of every construct that oomguard supports.

Ranges are 7 s more than a multiple of 15 s, offsets and steps are multiples of 15 s: see `promql_data` for why.
"""

from __future__ import annotations

from tests.support.promql_data import END, START

METRICS = {
    "http_requests_total": ("job", "instance", "code", "method"),
    "errors_total": ("job", "instance"),
    "memory_bytes": ("job", "instance"),
    "temperature_celsius": ("job", "instance"),
    "queue_length": ("job", "instance", "queue"),
    "latency_seconds_bucket": ("job", "instance", "le"),
    "limit_bytes": ("job",),
    "build_info": ("job", "version"),
    "strange": ("kind",),
    "left_total": ("a", "b"),
    "right_total": ("a", "b"),
    "brief": ("job",),
}
MATCHERS = (
    'job="api"', 'job!="api"', 'job=~"a.*"', 'job=~"api|web"', 'job!~"w.b"', 'instance=~".+-[01]:.*"', 'code=~"[25]0+"',
    'code!="200"', 'queue="a"', 'queue=~"b|"', 'kind!~"inf|mixed"', 'a!="2"', 'b=~"(x|y)"', 'nothing=""',
    'instance=~"(?i:API)-\\\\d+:90.0"', 'le=~"0\\\\.[15]|1"', 'version=~"\\\\d(\\\\.\\\\d)?"',
)  # fmt: skip
COUNTERS = ("http_requests_total", "errors_total", "left_total", "right_total", "latency_seconds_bucket")
OVER_TIME = ("avg", "min", "max", "sum", "count", "last", "present", "stddev", "stdvar")
ON_RANGE = ("rate", "increase", "delta", "irate", "idelta", "deriv", "resets", "changes")
OF_VECTOR = (
    "abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "ceil", "cos", "cosh", "deg", "exp", "floor", "ln",
    "log10", "log2", "rad", "sgn", "sin", "sinh", "sqrt", "tan", "tanh", "sort", "sort_desc", "timestamp", "round",
)  # fmt: skip
DATES = ("day_of_month", "day_of_week", "day_of_year", "days_in_month", "hour", "minute", "month", "year")
NUMBERS = ("0", "1", "2", "-1", "0.5", "3.7", "100", "1e9", "-0.25", "NaN", "Inf", "-Inf", "1e-3", "0x1F")


class Grammar:
    """Makes expressions from one source of chance."""

    def __init__(self, rng):
        self.rng = rng

    def expression(self):
        """A vector or, rarely, a scalar expression.

        topk and bottomk of what may be equal stand outermost only: which of equal ones they take is left open.
        """
        if self.rng.random() < 0.02:
            by = f" {self.rng.choice(('by', 'without'))} ({self.labels()})" if self.rng.random() < 0.5 else ""
            op, k = (
                self.rng.choice(("topk", "bottomk")),
                self.rng.choice(("1", "2", "3.9", "100", "0", "-1", "Inf", "NaN")),
            )
            return f"{op}{by} ({k}, {self.vector(2)})"
        return self.vector(self.rng.choice((1, 1, 2, 2, 3))) if self.rng.random() < 0.96 else self.scalar(2)

    def duration(self, least=1, most=40):
        return f"{self.rng.randrange(least, most) * 15 + 7}s"

    def modifiers(self, *, both=True):
        text = ""
        if self.rng.random() < 0.12:
            text += f" offset {self.rng.choice(('15s', '1m', '5m', '10m', '-1m', '-90s'))}"
        if self.rng.random() < 0.06 and (both or not text):
            fixed = START + self.rng.randrange(300, (END - START) // 1000) * 1000 + 500
            at = self.rng.choice((f"{fixed / 1000:.3f}", f"{fixed / 1000:.3f}", "start()", "end()"))
            text = f" @ {at}{text}" if self.rng.random() < 0.5 else f"{text} @ {at}"
        return text

    def selector(self, names=tuple(METRICS)):
        rng = self.rng
        if rng.random() < 0.03:
            name = rng.choice(
                ("left_total|right_total", "memory_bytes|temperature_celsius", "err.*", "l.*_bytes")
            )
            return f'{{__name__=~"{name}"}}'
        name = rng.choice(names)
        known = METRICS[name]
        fitting = [text for text in MATCHERS if text.split("=")[0].rstrip("!") in (*known, "nothing")]
        chosen = rng.sample(fitting, min(len(fitting), rng.choice((0, 0, 0, 1, 1, 2))))
        if chosen and rng.random() < 0.2:
            return f'{{__name__="{name}", {", ".join(chosen)}}}'
        return f"{name}{{{', '.join(chosen)}}}" if chosen else name

    def matrix(self, depth, names=tuple(METRICS), *, fixed=True):
        if depth > 0 and self.rng.random() < 0.25:
            step = self.rng.choice(("", "15s", "30s", "1m", "75s"))
            inner = self.vector(depth - 1)
            return f"({inner})[{self.duration(8, 60)}:{step}]{self.modifiers()}"
        # 2.42 loses samples of predict_linear(x[5m] @ t) from one step of a subquery to the next.
        modifiers = self.modifiers()
        while not fixed and "@" in modifiers:
            modifiers = self.modifiers()
        return f"{self.selector(names)}[{self.duration(2)}]{modifiers}"

    def scalar(self, depth):
        rng = self.rng
        choice = rng.random()
        if depth <= 0 or choice < 0.6:
            return rng.choice((*NUMBERS, "time()", "pi()"))
        if choice < 0.75:
            return f"scalar({self.vector(depth - 1)})"
        op = rng.choice(("+", "-", "*", "/", "^", "atan2", "== bool", "> bool", "<= bool", "!= bool"))
        return f"({self.scalar(depth - 1)} {op} {self.scalar(depth - 1)})"

    def vector(self, depth):
        rng = self.rng
        if depth <= 0:
            return self.selector() + self.modifiers()
        kinds = (
            (self.on_range, 22), (self.over_time, 16), (self.aggregation, 18), (self.arithmetic, 10),
            (self.comparison, 10), (self.set_operation, 6), (self.matched, 14), (self.of_vector, 10),
            (self.relabelled, 4), (self.histogram, 4), (self.absent, 3), (self.special, 5),
        )  # fmt: skip
        make = rng.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])[0]
        return make(depth)

    def on_range(self, depth):
        name = self.rng.choice(ON_RANGE)
        names = COUNTERS if self.rng.random() < 0.6 else tuple(METRICS)
        if self.rng.random() < 0.15:
            ahead = self.rng.choice(("60", "3600", self.scalar(1)))
            return f"predict_linear({self.matrix(depth - 1, names, fixed=False)}, {ahead})"
        # Whether computed values are the same is a matter of their last digit.
        depth = min(depth, 2) if name in {"changes", "resets"} else depth
        return f"{name}({self.matrix(depth - 1, names)})"

    def over_time(self, depth):
        if self.rng.random() < 0.12:
            return f"quantile_over_time({self.fraction()}, {self.matrix(depth - 1)})"
        return f"{self.rng.choice(OVER_TIME)}_over_time({self.matrix(depth - 1)})"

    def fraction(self):
        return self.rng.choice(("0", "0.1", "0.5", "0.9", "0.99", "1", "-1", "2", "NaN", "(1 / 3)"))

    def labels(self):
        names = ["job", "instance", "code", "queue", "le", "kind", "a", "b", "nothing", "__name__"]
        return ", ".join(self.rng.sample(names, self.rng.choice((0, 1, 1, 1, 2, 2, 3))))

    def aggregation(self, depth):
        rng = self.rng
        op = rng.choice(
            ("sum", "sum", "avg", "min", "max", "count", "group", "stddev", "stdvar", "topk", "bottomk", "quantile",
             "count_values")
        )  # fmt: skip
        by = f" {rng.choice(('by', 'without'))} ({self.labels()})" if rng.random() < 0.7 else ""
        first, inner = "", self.vector(depth - 1)
        if op in {"topk", "bottomk"}:
            first = f"{rng.choice(('1', '2', '3.9', '100'))}, "
            inner = rng.choice(
                ("memory_bytes", "temperature_celsius", f"deriv(memory_bytes[{self.duration(8)}])")
            )
        elif op == "quantile":
            first = f"{self.fraction()}, "
        elif op == "count_values":
            # The last digit of a computed value may differ, and it is a label here.
            first = f'"{rng.choice(("value", "job", "code"))}", '
            inner = f"{self.selector()}{self.modifiers()}"
        if rng.random() < 0.5:
            return f"{op}{by} ({first}{inner})"
        return f"{op}({first}{inner}){by}"

    def arithmetic(self, depth):
        vector, op = self.vector(depth - 1), self.rng.choice(("+", "-", "*", "/", "%", "^", "atan2"))
        # The last digit of a power decides what a remainder is.
        number = self.scalar(0 if op == "%" else 1)
        if op == "%":
            vector = self.selector()
        return f"({vector}) {op} {number}" if self.rng.random() < 0.6 else f"{number} {op} ({vector})"

    def comparison(self, depth):
        vector, op = self.vector(depth - 1), self.rng.choice(("==", "!=", ">", "<", ">=", "<="))
        if self.rng.random() < 0.4:
            op += " bool"
        number = self.scalar(1)
        return f"({vector}) {op} {number}" if self.rng.random() < 0.6 else f"{number} {op} ({vector})"

    def matching(self):
        return f"{self.rng.choice(('on', 'ignoring'))} ({self.labels()})" if self.rng.random() < 0.75 else ""

    def set_operation(self, depth):
        op = self.rng.choice(("and", "or", "unless"))
        return f"({self.vector(depth - 1)}) {op} {self.matching()} ({self.vector(depth - 1)})"

    def matched(self, depth):
        """Vectors of two series that mostly fit, so that matching is met more often than it fails."""
        rng = self.rng
        op = rng.choice(
            ("+", "-", "*", "/", "%", "^", "atan2", "==", "!=", ">", "<", ">=", "<=", "> bool", "== bool")
        )
        if rng.random() < 0.25:
            return f"({self.vector(depth - 1)}) {op} {self.matching()} ({self.vector(depth - 1)})"
        pairs = (
            ("memory_bytes", "on (job) group_left ()", "limit_bytes"),
            ("memory_bytes", "on (job) group_left (version)", "build_info"),
            ("limit_bytes", "on (job) group_right ()", "memory_bytes"),
            ("build_info", "on (job) group_right (version)", "queue_length"),
            ("limit_bytes", "on (job)", 'memory_bytes{instance=~".*-0:.*"}'),
            ("errors_total", "", "memory_bytes"),
            ("errors_total", "on (job, instance)", "memory_bytes"),
            ("left_total", "", "right_total"),
            ("left_total", "ignoring (b)", "right_total"),
            ("left_total", "ignoring (b) group_left ()", 'right_total{b!="z"}'),
            ("left_total", "ignoring (b) group_right (b)", "right_total"),
            ("left_total", "on (a, b)", "right_total"),
            ('queue_length{queue="a"}', "ignoring (queue)", 'queue_length{queue="b"}'),
            ('http_requests_total{code="500"}', "ignoring (code)", 'http_requests_total{code="200"}'),
            ("http_requests_total", "on (job, instance) group_left ()", "memory_bytes"),
            ("sum by (job) (memory_bytes)", "", "limit_bytes"),
            ("memory_bytes", "on (job, instance)", "temperature_celsius"),
            ("temperature_celsius", "", "temperature_celsius"),
        )
        left, how, right = rng.choice(pairs)
        if rng.random() < 0.3:
            left, right = (
                f"rate({left}[{self.duration(4)}])" if "(" not in left else left,
                f"({right} offset 1m)",
            )
        return f"{left} {op} {how} {right}"

    def of_vector(self, depth):
        name = self.rng.choice((*OF_VECTOR, "clamp", "clamp_min", "clamp_max", "round", "-", "date"))
        inner = self.vector(depth - 1)
        if name in {"sin", "cos", "tan"} or (name == "timestamp" and "offset" in inner):
            # Of a large number these are chaotic: the last digit of the argument decides.
            inner = self.selector()
        if name in {"round", "floor", "ceil"}:
            inner = self.selector() + self.modifiers()
        if name == "-":
            return f"-({inner})"
        if name == "clamp":
            return f"clamp({inner}, {self.scalar(1)}, {self.scalar(1)})"
        if name in {"clamp_min", "clamp_max"} or (name == "round" and self.rng.random() < 0.6):
            return f"{name}({inner}, {self.scalar(1)})"
        if name == "date":
            seconds = self.rng.choice(
                ("1e8 + errors_total * 86400", "timestamp(memory_bytes)", "-1e6 * queue_length")
            )
            return f"{self.rng.choice(DATES)}({self.rng.choice(('', seconds, seconds))})"
        return f"{name}({inner})"

    def relabelled(self, depth):
        inner = self.vector(depth - 1)
        if self.rng.random() < 0.3:
            return f'label_join({inner}, "{self.rng.choice(("job", "joined"))}", "-", "job", "instance")'
        pattern = self.rng.choice(
            ("(.*)", "(\\\\w+)-(\\\\d):.*", "a(?P<rest>.*)", "", "(?:api|(w)eb).*", "never")
        )
        template = self.rng.choice(("$1", "x${2}y", "$1$2", "$rest", "$$1-$0", "", "fixed", "$1x"))
        target = self.rng.choice(("job", "made", "code", "__name__"))
        source = self.rng.choice(("job", "instance"))
        return f'label_replace({inner}, "{target}", "{template}", "{source}", "{pattern}")'

    def histogram(self, _depth):
        buckets = self.selector(("latency_seconds_bucket",))
        if self.rng.random() < 0.7:
            buckets = f"rate({buckets}[{self.duration(4)}])"
        if self.rng.random() < 0.5:
            buckets = f"sum by (le{self.rng.choice(('', ', job', ', instance'))}) ({buckets})"
        return f"histogram_quantile({self.fraction()}, {buckets})"

    def absent(self, depth):
        missing = 'none{job="api", code=~"2.*", a="1"}'
        if self.rng.random() < 0.4:
            return f"absent_over_time({self.rng.choice((missing + '[5m7s]', self.matrix(depth - 1)))})"
        return f"absent({self.rng.choice((missing, 'brief', 'sum(none)', f'({missing})', self.vector(depth - 1)))})"

    def special(self, depth):
        return self.rng.choice(
            (
                f"vector({self.scalar(2)})",
                f"timestamp(sum({self.vector(depth - 1)}))",
                f"timestamp(({self.selector()}{self.modifiers(both=False)}))",
                f"{self.vector(depth - 1)} or vector({self.scalar(1)})",
                f"0 < +({self.vector(depth - 1)})",
                f"sum({self.vector(depth - 1)}) / count({self.vector(depth - 1)})",
            )
        )


class Patterns:
    """Makes regular expressions of RE2's syntax, and texts that they sometimes match."""

    ATOMS = (
        "a", "b", "-", "k", "s", "1", "é", ".", "\\d", "\\w", "\\S", "\\D", "[ab]", "[^a]", "[a-c1]", "[[:alpha:]-]",
        "\\.", "[\\d.]", "\\x61", "^", "$", "\\b", "(?i)", "(?i:K)", "[^[:^digit:]]", "[]a]", "{", "\\/", "[a-]",
        "(?-s).",
    )  # fmt: skip
    REPEATS = (*("",) * 14, "*", "+", "?", "*?", "+?", "{2}", "{1,2}", "{0,3}?", "{1,}", "**", "{,2}")
    LETTERS = "aabbkKs1-.é\u212a{]"

    def __init__(self, rng):
        self.rng = rng

    def pattern(self, depth=2):
        rng = self.rng
        return "|".join(
            "".join(self._piece(depth) for _ in range(rng.choice((1, 1, 2, 3))))
            for _ in range(rng.choice((1, 1, 1, 2, 3)))
        )

    def _piece(self, depth):
        rng = self.rng
        if depth and rng.random() < 0.3:
            opening = rng.choice(("(", "(", "(?:", "(?P<n>", "(?i:"))
            return f"{opening}{self.pattern(depth - 1)}){rng.choice(self.REPEATS)}"
        return rng.choice(self.ATOMS) + rng.choice(self.REPEATS)

    def text(self):
        return "".join(self.rng.choice(self.LETTERS) for _ in range(self.rng.randrange(6)))
