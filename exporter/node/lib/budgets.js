'use strict';
// Budgets: bytes that parts of the application agree not to go beyond together.

const check = require('./check.js');
const { BudgetExceeded } = require('./errors.js');
const { parseSize } = require('./size.js');

const WARNING = 0.8;
const CRITICAL = 0.9;
const MIB = 2 ** 20;

class Budget {
  constructor(name, limit) {
    this.name = name;
    this.limit = limit;
    this.reserved = 0;
    this.refused = 0;
  }

  get state() {
    const ratio = this.reserved / this.limit;
    return ratio >= CRITICAL ? 'critical' : ratio >= WARNING ? 'warning' : 'ok';
  }

  canReserve(bytes) {
    return this.reserved + amount(this.name, bytes) <= this.limit;
  }

  /** Take `bytes`; the reservation's `release()` gives them back, once. Throws BudgetExceeded. */
  reserve(bytes) {
    if (!this.canReserve(bytes)) {
      this.refused++;
      const left = Math.max(0, this.limit - this.reserved);
      throw new BudgetExceeded(
        `budget '${this.name}': ${mib(bytes)} asked for, ${mib(left)} of ${mib(this.limit)} left`, bytes, left);
    }
    this.reserved += bytes;
    return new Reservation(this, bytes);
  }

  /** Hold `bytes` while `run` runs, and return what it returns. Rejects with BudgetExceeded. */
  async use(bytes, run) {
    const reservation = this.reserve(bytes);
    try {
      return await run();
    } finally {
      reservation.release();
    }
  }
}

class Reservation {
  constructor(budget, bytes) {
    this.budget = budget;
    this.bytes = bytes;
  }

  release() {
    this.budget.reserved -= this.bytes;
    this.bytes = 0;
  }
}

if (Symbol.dispose) {
  Object.defineProperty(Reservation.prototype, Symbol.dispose, { value: Reservation.prototype.release });
}

class Budgets {
  constructor(warn) {
    this.warn = warn;
    this.budgets = new Map();
  }

  /** The budget of this name; the same one each time, so that a handler may write it. */
  get(name, { limit } = {}) {
    check.name('budget', name);
    const bytes = parseSize(`budget '${name}': limit`, limit);
    const known = this.budgets.get(name);
    if (known === undefined) {
      const budget = new Budget(name, bytes);
      this.budgets.set(name, budget);
      return budget;
    }
    if (known.limit !== bytes) {
      this.warn(`budget '${name}' was given another limit: the later one counts`);
      known.limit = bytes;
    }
    return known;
  }

  reading() {
    return [...this.budgets.values()].map(({ name, limit, reserved, refused, state }) => ({ name, limit, reserved, refused, state }));
  }
}

function amount(name, bytes) {
  return check.number(`budget '${name}': bytes`, bytes, 0);
}

function mib(bytes) {
  return bytes >= MIB ? `${Math.round(bytes / MIB)} MiB` : `${bytes} bytes`;
}

module.exports = { Budgets };
