'use strict';
// Refusing new requests while memory is short: on order of the step `shed`, or above a level of memory.

const { answer } = require('./answer.js');
const { goalBytes, parseGoal } = require('./size.js');
const { now } = require('./time.js');

/** Seconds that an order lasts; the sidecar renews it for as long as it wants. */
const LASTS = 30;
/** Seconds between two looks at memory. */
const LOOK = 0.1;
/** Part of the level below which memory has to fall until requests are served again. */
const BACK = 0.95;
/** Never refused: what a probe or a person asks. The last part of the path decides, and /admin as a whole. */
const EXEMPT = /^\/admin(?:\/|$)|\/(?:health|healthz|livez|readyz|live|ready|metrics)\/?$/;

class Shedding {
  /** `look` tells the level of memory; `armed` is called when requests may have to be refused from now on. */
  constructor(look, armed) {
    this.look = look;
    this.armed = armed;
    this.level = null;
    this.until = 0;
    this.looked = -Infinity;
    this.high = false;
    this.refused = 0;
  }

  /** Refuse while memory is above this: a ratio (0.9), a percentage or a size. Throws a RangeError. */
  above(given) {
    this.level = parseGoal(given);
    this.armed();
  }

  /** The step `shed`: refuse for 30 s from now; the name `off` ends it. */
  take(name) {
    if (name === 'off') {
      this.until = 0;
      return answer('done', '', { details: { on: this.on() } });
    }
    this.until = now() + LASTS;
    this.armed();
    return answer('done', '', { details: { on: true, seconds: LASTS } });
  }

  on() {
    const time = now();
    if (time < this.until) return true;
    if (this.level === null) return false;
    if (time - this.looked >= LOOK) {
      this.looked = time;
      const { used, limit } = this.look();
      const most = goalBytes(this.level, limit);
      this.high = most !== null && used > (this.high ? most * BACK : most);
    }
    return this.high;
  }

  /** Whether this request is refused; then it has been answered. */
  refuse(request, response) {
    if (!this.on() || EXEMPT.test(request.url.split('?', 1)[0])) return false;
    this.refused++;
    const body = 'memory is short here: try again later\n';
    response.writeHead(503, { 'Retry-After': String(LASTS), 'Content-Type': 'text/plain', 'Content-Length': body.length });
    response.end(body);
    request.resume(); // a body that nobody reads would hold the connection
    return true;
  }

  reading() {
    return { on: this.on(), refused: this.refused };
  }
}

module.exports = { Shedding };
