'use strict';

/** Counts by upper bounds; `counts` has one more than `bounds` (the last is everything above), not cumulative. */
class Histogram {
  constructor(bounds) {
    this.bounds = bounds;
    this.counts = new Array(bounds.length + 1).fill(0);
    this.sum = 0;
  }

  add(value) {
    let index = 0;
    while (index < this.bounds.length && value > this.bounds[index]) index++;
    this.counts[index]++;
    this.sum += value;
  }
}

module.exports = { Histogram };
