'use strict';
// How late the event loop is: the longest delay since the same reader last asked.

const { monitorEventLoopDelay } = require('perf_hooks');

/** Milliseconds between two looks; a delay is told to within this. */
const RESOLUTION = 20;

class Loop {
  constructor() {
    this.histogram = monitorEventLoopDelay({ resolution: RESOLUTION }); // one of our own: resetting it disturbs nobody
    this.histogram.enable();
    this.longest = new Map();
  }

  stop() {
    this.histogram.disable();
  }

  /** Seconds; `reader` names who asks, so that several readers each see every delay. */
  reading(reader) {
    // Each of its values is the time between two looks, so a loop that is never late shows the resolution itself.
    const found = this.histogram.count > 0 ? Math.max(0, this.histogram.max / 1e9 - RESOLUTION / 1000) : 0;
    this.histogram.reset();
    if (!this.longest.has(reader)) this.longest.set(reader, 0);
    for (const [name, longest] of this.longest) this.longest.set(name, Math.max(longest, found));
    const lag = this.longest.get(reader);
    this.longest.set(reader, 0);
    return { status: 'ok', lag };
  }
}

module.exports = { Loop };
