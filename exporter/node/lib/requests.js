'use strict';
// The requests that are being answered: how many, and by how much memory grew while one was alone.

const { Histogram } = require('./histogram.js');
const { now } = require('./time.js');

/** Seconds between two requests that are measured. */
const SAMPLING = 0.1;
const KIB = 2 ** 10;
const MIB = 2 ** 20;
/** Bytes. */
const BOUNDS = [0, 64 * KIB, 256 * KIB, MIB, 4 * MIB, 16 * MIB, 64 * MIB, 256 * MIB];

class Requests {
  constructor() {
    this.begun = 0;
    this.inFlight = 0;
    this.total = 0;
    this.next = 0;
    this.growth = new Histogram(BOUNDS);
  }

  /** Count one that begins; what is returned goes to `end`: null, or what a measured one began with. */
  begin() {
    this.begun++;
    this.inFlight++;
    if (this.inFlight > 1) return null;
    const time = now();
    if (time < this.next) return null;
    this.next = time + SAMPLING;
    return { rss: process.memoryUsage.rss(), begun: this.begun };
  }

  /** Count one as answered, with what `begin` returned for it. Memory that fell counts as growth of 0: a sum has to rise. */
  end(mark) {
    this.inFlight--;
    this.total++;
    if (mark && mark.begun === this.begun) this.growth.add(Math.max(0, process.memoryUsage.rss() - mark.rss));
  }

  /** Take back one that turned out to be a stream. */
  leave() {
    this.inFlight--;
  }

  reading() {
    const { bounds, counts, sum } = this.growth;
    return { in_flight: this.inFlight, total: this.total, growth: { bounds, counts: [...counts], sum } };
  }
}

module.exports = { Requests };
