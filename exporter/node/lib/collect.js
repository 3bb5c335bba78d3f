'use strict';
// A full collection without a flag at the start: V8 makes `gc` a global of each context that is born while
// --expose-gc is set, so one context is made and the flag is taken back.

const v8 = require('v8');
const vm = require('vm');
const { now } = require('./time.js');

/** Seconds of the last full collection from which on the step `gc` is not taken: requests would time out. */
const LONG_PAUSE = 0.2;
/** A full collection takes about 1 ms for each megabyte that is used. */
const SECONDS_PER_BYTE = 1e-9;

class Collector {
  constructor() {
    this.gc = null;
    /** Seconds that the last one took; null before the first. */
    this.last = null;
  }

  /** Collect now; { seconds, freed }: how long the program stood, and by how many bytes the heap's use fell. */
  collect() {
    const gc = this.function();
    const before = v8.getHeapStatistics().used_heap_size;
    const began = now();
    gc();
    this.last = now() - began;
    return { seconds: this.last, freed: before - v8.getHeapStatistics().used_heap_size };
  }

  /** Why a collection must not be made now, as the protocol's `reason` and details; null: it may. */
  objection(within) {
    if (this.last !== null && this.last > LONG_PAUSE) return ['long_pause', { last_full: this.last }];
    const expected = this.last === null ? v8.getHeapStatistics().used_heap_size * SECONDS_PER_BYTE : this.last;
    return expected > within ? ['no_time', { expected }] : null;
  }

  function() {
    if (this.gc === null) {
      if (typeof globalThis.gc === 'function') {
        this.gc = globalThis.gc;
      } else {
        // Taking the flag back where the application had set it would hide its own gc from contexts yet to come; then
        // its global would have been there.
        v8.setFlagsFromString('--expose-gc');
        try {
          this.gc = vm.runInNewContext('gc');
        } finally {
          v8.setFlagsFromString('--no-expose-gc');
        }
      }
    }
    return this.gc;
  }
}

module.exports = { Collector };
