'use strict';
// V8's own limit: when the heap comes near it, the hook gives back what it can, whether a sidecar is there or not.
//
// V8 ends the process ("Reached heap limit", "Ineffective mark-compacts near heap limit") where a full collection
// leaves the old generation at its limit. Only what lives after a full collection says how near that is: before
// caches are thrown away, one is made.

const { MIB } = require('./heap.js');
const { now } = require('./time.js');

/** Part of the limit from which on caches and idle models are taken. */
const NEAR = 0.85;
/** Bytes that are kept free at least: one scavenge can move a whole young generation (16 MiB) into the old one. */
const ROOM = 24 * MIB;
const LEAST = 0.7;
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
   * `measure` tells the bytes in use: { old, young }; `collect` makes a full collection and returns the seconds that it
   * took; `relieve` takes the steps, and returns a promise.
   */
  constructor(limit, measure, collect, relieve) {
    this.limit = limit;
    this.near = threshold(limit);
    this.measure = measure;
    this.collect = collect;
    this.relieve = relieve;
    this.busy = false;
    this.collectAt = -Infinity;
    this.backOff = 0;
    this.notBefore = -Infinity;
    this.floor = 0;
  }

  /** Whether what is in use is near the limit; asked after a full collection, when all of it lives. */
  isNear() {
    const { old, young } = this.measure();
    return old + young >= this.near;
  }

  /** Look after a collection, a full one or not. */
  async look(full) {
    const { old, young } = this.measure();
    // The young generation is mostly garbage. It counts where all of it, if it lived, would not fit any more.
    if (this.busy || (old < this.near && old + young < this.limit)) return;
    if (now() < this.notBefore && old < this.floor + GROWN * this.limit) return;
    if (now() >= this.collectAt) {
      this.collectAt = now() + SHARE * this.collect();
      if (!this.isNear()) return;
    } else if (!full || old < this.near) {
      return; // V8 makes a full collection itself before the limit
    }
    this.busy = true;
    try {
      await this.relieve();
      this.floor = this.measure().old;
      this.backOff = this.isNear() ? Math.min(LONGEST_BACK_OFF, 2 * this.backOff || FIRST_BACK_OFF) : 0;
      this.notBefore = now() + this.backOff;
    } finally {
      this.busy = false;
    }
  }
}

module.exports = { NearLimit, threshold };
