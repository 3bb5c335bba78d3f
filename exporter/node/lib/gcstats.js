'use strict';
// How long V8 stopped the program to collect, by kind, and a word to whoever waits for a collection's end.

const { PerformanceObserver, constants } = require('perf_hooks');
const { Histogram } = require('./histogram.js');

/** Seconds. A scavenge takes about 1 ms, a full collection about 1 ms for each megabyte that lives. */
const BOUNDS = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1];
const MINOR = 'minor';
const MAJOR = 'major';
/** Kinds of perf_hooks; V8's minor mark-sweep (bit 1) has no constant in Node. */
const KINDS = new Map([
  [constants.NODE_PERFORMANCE_GC_MINOR, MINOR],
  [2, MINOR],
  [constants.NODE_PERFORMANCE_GC_MAJOR, MAJOR],
  [constants.NODE_PERFORMANCE_GC_INCREMENTAL, 'incremental'],
  [constants.NODE_PERFORMANCE_GC_WEAKCB, 'weakcb'],
]);

class GcStats {
  /** `collected` is called with true after a full collection and with false after others, on the loop's next turn. */
  constructor(collected) {
    this.collected = collected;
    this.kinds = {};
    for (const kind of new Set(KINDS.values())) this.kinds[kind] = new Histogram(BOUNDS);
    this.observer = new PerformanceObserver((list) => {
      try {
        this.observed(list.getEntries());
      } catch {
        // It would be an uncaught exception of the application's.
      }
    });
    this.observer.observe({ entryTypes: ['gc'] });
  }

  stop() {
    this.observer.disconnect();
  }

  observed(entries) {
    let major = false;
    for (const entry of entries) {
      const kind = KINDS.get(entry.detail.kind);
      if (kind === undefined) continue;
      this.kinds[kind].add(entry.duration / 1000);
      major = major || kind === MAJOR;
    }
    this.collected(major);
  }

  reading() {
    const kinds = {};
    for (const [kind, { counts, sum }] of Object.entries(this.kinds)) kinds[kind] = { counts: [...counts], sum };
    return { status: 'ok', kinds, pause_bounds: BOUNDS };
  }
}

module.exports = { GcStats };
