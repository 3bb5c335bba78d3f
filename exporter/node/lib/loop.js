'use strict';
// How late the event loop is: the longest delay since the same reader last asked.
//
// Measured by a timer of our own. Node's monitorEventLoopDelay forgets, when it is reset, the delay that is just
// going on: the answer to a reading is what follows a blocked loop, so it would miss just the longest.

const { cancel, later, now } = require('./time.js');

/** Seconds between two looks: a delay is told to within this. Each look costs 0.1 ms, 0.25 % of a core. */
const INTERVAL = 0.05;

class Loop {
  constructor() {
    this.longest = new Map();
    this.look = () => {
      this.note();
      this.due = now() + INTERVAL;
      this.timer = later(INTERVAL, this.look);
    };
    this.due = now();
    this.look();
  }

  stop() {
    cancel(this.timer);
  }

  /** How long the timer has been due; told to every reader, once. */
  note() {
    const late = now() - this.due;
    if (late <= 0) return;
    this.due += late;
    for (const [reader, longest] of this.longest) if (late > longest) this.longest.set(reader, late);
  }

  /** Seconds; `reader` names who asks, so that several readers each see every delay. */
  reading(reader) {
    if (!this.longest.has(reader)) this.longest.set(reader, 0);
    this.note();
    const lag = this.longest.get(reader);
    this.longest.set(reader, 0);
    return { status: 'ok', lag };
  }
}

module.exports = { Loop };
