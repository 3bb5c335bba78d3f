'use strict';
// V8's own limit: when the heap comes near it, the hook gives back what it can, whether a sidecar is there or not.
//
// V8 ends the process ("Reached heap limit", "Ineffective mark-compacts near heap limit") where a full collection
// leaves the old generation at its limit. Only what lives after a full collection says how near that is.

const { MIB } = require('./heap.js');
const { now } = require('./time.js');

/** Part of the limit from which on caches, idle models and a collection are taken. */
const NEAR = 0.85;
/** Bytes that are kept free at least: one scavenge can move a whole young generation (16 MiB) into the old one. */
const ROOM = 24 * MIB;
const LEAST = 0.7;
/** Part of the limit by which the heap must have grown since the last full collection for another one. */
const GROWN = 0.02;
/** Seconds until the next try after one that did not help; twice as long each time. */
const FIRST_BACK_OFF = 1;
const LONGEST_BACK_OFF = 60;

function threshold(limit) {
  return Math.max(LEAST * limit, Math.min(NEAR * limit, limit - ROOM));
}

class NearLimit {
  /**
   * `used` tells the bytes in use; `collect` makes a full collection; `relieve` takes the steps, and returns a
   * promise that does not reject.
   */
  constructor(limit, used, collect, relieve) {
    this.limit = limit;
    this.near = threshold(limit);
    this.used = used;
    this.collect = collect;
    this.relieve = relieve;
    this.live = 0;
    this.busy = false;
    this.backOff = 0;
    this.notBefore = 0;
    this.floor = 0;
  }

  /** Look after a collection, a full one or not. */
  async look(full) {
    if (this.busy) return;
    if (full) this.live = this.used();
    if (this.used() < this.near) return;
    if (now() < this.notBefore && this.used() < this.floor + GROWN * this.limit) return;
    if (!full) {
      // Most of it may be garbage, which is no reason to throw caches away; V8 itself would collect it soon.
      if (this.used() < this.live + GROWN * this.limit) return;
      this.collect();
      this.live = this.used();
    }
    if (this.live < this.near) return;
    this.busy = true;
    try {
      await this.relieve();
      this.live = this.floor = this.used();
      const helped = this.live < this.near;
      this.backOff = helped ? 0 : Math.min(LONGEST_BACK_OFF, 2 * this.backOff || FIRST_BACK_OFF);
      this.notBefore = now() + this.backOff;
    } finally {
      this.busy = false;
    }
  }
}

module.exports = { NearLimit, threshold };
