'use strict';
// V8's own limit: when the heap comes near it, the hook gives back what it can, whether a sidecar is there or not.
//
// V8 ends the process where the old generation is at its limit after a full collection ("Reached heap limit"), and
// also where four of them in a row left it above 80 % and took most of the time ("Ineffective mark-compacts near heap
// limit", Heap::CheckIneffectiveMarkCompact). A collection that we order counts among these four. So there is relief
// before 80 %, and above that no collection of ours unless something was let go before it.

const { MIB } = require('./heap.js');
const { now } = require('./time.js');

/** Part of the limit from which on caches and idle models are taken. */
const NEAR = 0.75;
/** Bytes that are kept free at least: one scavenge can move a whole young generation (16 MiB) into the old one. */
const ROOM = 24 * MIB;
const LEAST = 0.6;
/** From here on V8 counts full collections that give nothing. */
const COUNTED = 0.8;
/** From here on relief does not wait for a full collection: there is no room for another scavenge. */
const CERTAIN = 0.9;
/** Part of the limit by which the heap must have grown since a relief that did not help, for another one at once. */
const GROWN = 0.02;
/** A collection of ours is not repeated before this many times its duration have passed: 5 % of the time at most. */
const SHARE = 20;
/** Seconds until the next try after one that did not help; twice as long each time. */
const FIRST_BACK_OFF = 1;
const LONGEST_BACK_OFF = 60;

function threshold(limit) {
  return Math.max(LEAST * limit, Math.min(NEAR * limit, limit - ROOM));
}

class NearLimit {
  /**
   * `old` tells the bytes in use in the old generation; `collect` makes a full collection and returns the seconds that
   * it took; `relieve` takes the steps, and returns a promise.
   */
  constructor(limit, old, collect, relieve) {
    this.limit = limit;
    this.near = threshold(limit);
    this.old = old;
    this.collect = collect;
    this.relieve = relieve;
    this.busy = false;
    this.collectAt = -Infinity;
    this.backOff = 0;
    this.notBefore = -Infinity;
    this.floor = 0;
  }

  isNear() {
    return this.old() >= this.near;
  }

  /** Whether V8 would count a full collection against the process that gives nothing. */
  isCounted() {
    return this.old() >= COUNTED * this.limit;
  }

  /** Look after a collection, a full one or not. */
  async look(full) {
    if (this.busy || !this.isNear()) return;
    if (now() < this.notBefore && this.old() < this.floor + GROWN * this.limit) return;
    if (!full && !this.lives()) return;
    this.busy = true;
    try {
      await this.relieve();
      this.floor = this.old();
      this.backOff = this.isNear() ? Math.min(LONGEST_BACK_OFF, 2 * this.backOff || FIRST_BACK_OFF) : 0;
      this.notBefore = now() + this.backOff;
    } finally {
      this.busy = false;
    }
  }

  /** After a scavenge: whether it is not garbage that V8 will collect in time. */
  lives() {
    if (this.isCounted()) return this.old() >= CERTAIN * this.limit;
    if (now() < this.collectAt) return false;
    this.collectAt = now() + SHARE * this.collect();
    return this.isNear();
  }
}

module.exports = { NearLimit, threshold };
