'use strict';
// What the guard throws into the application; everything else stays inside.

/** A budget would go over its limit. `asked` and `left` are bytes. */
class BudgetExceeded extends RangeError {
  constructor(text, asked, left) {
    super(text);
    this.name = 'BudgetExceeded';
    this.code = 'OOMGUARD_BUDGET_EXCEEDED';
    this.asked = asked;
    this.left = left;
  }
}

/** A model is disabled and has no fallback, or its last load failed and the next try is `retryAfter` seconds away. */
class ModelUnavailable extends Error {
  constructor(text, retryAfter, cause) {
    super(text, cause === undefined ? undefined : { cause });
    this.name = 'ModelUnavailable';
    this.code = 'OOMGUARD_MODEL_UNAVAILABLE';
    this.retryAfter = retryAfter;
  }
}

module.exports = { BudgetExceeded, ModelUnavailable };
