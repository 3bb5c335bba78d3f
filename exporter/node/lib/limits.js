'use strict';
// Limits: at most so many at once, the rest wait in line.

const check = require('./check.js');

class Limit {
  constructor(name, limit) {
    this.name = name;
    this.limit = limit;
    this.inUse = 0;
    this.waited = 0;
    this.line = [];
  }

  /** Run `run` when it is its turn, and return what it returns. */
  async use(run) {
    // Whoever comes while others wait waits behind them.
    if (this.inUse >= this.limit || this.line.length) {
      this.waited++;
      await new Promise((resolve) => this.line.push(resolve));
    } else {
      this.inUse++;
    }
    try {
      return await run();
    } finally {
      this.leave();
    }
  }

  /** Hand the place to the next in line; after the limit was lowered, nobody comes in its place. */
  leave() {
    if (this.line.length && this.inUse <= this.limit) this.line.shift()();
    else this.inUse--;
  }

  change(limit) {
    this.limit = limit;
    while (this.line.length && this.inUse < this.limit) {
      this.inUse++;
      this.line.shift()();
    }
  }
}

class Limits {
  constructor(environ, warn) {
    this.environ = environ;
    this.warn = warn;
    this.limits = new Map();
  }

  /** The limit of this name, the same one each time; without a number that of MAX_CONCURRENT_AGENTS. */
  get(name, limit) {
    check.name('limit', name);
    if (limit === undefined) limit = Number(this.environ.MAX_CONCURRENT_AGENTS) || undefined;
    if (!Number.isInteger(limit) || limit < 1) {
      throw new RangeError(`limit '${name}': ${String(limit)} must be a whole number of at least 1, or set MAX_CONCURRENT_AGENTS`);
    }
    const known = this.limits.get(name);
    if (known === undefined) {
      const made = new Limit(name, limit);
      this.limits.set(name, made);
      return made;
    }
    if (known.limit !== limit) {
      this.warn(`limit '${name}' was given another number: the later one counts`);
      known.change(limit);
    }
    return known;
  }

  reading() {
    return [...this.limits.values()].map((one) => ({
      name: one.name, limit: one.limit, in_use: one.inUse, waiting: one.line.length, waited: one.waited,
    }));
  }
}

module.exports = { Limits };
