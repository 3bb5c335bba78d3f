'use strict';
// What stays open: event streams that were noticed, and what the application names itself (guard.stream).

const check = require('./check.js');
const { answer, text } = require('./answer.js');
const { Histogram } = require('./histogram.js');
const { now } = require('./time.js');

const REASONS = ['client', 'server', 'evicted', 'error'];
/** Seconds that a stream was open. */
const BOUNDS = [1, 5, 15, 60, 300, 900, 3600, 14400];
/** Seconds without an event after which a stream counts as idle. */
const IDLE = 5;

/** One that is open. `evict` ends it; a stream that has none is counted, and never evicted. */
class Stream {
  constructor(streams, name, evict) {
    this.streams = streams;
    this.name = name;
    this.evict = evict;
    this.opened = this.active = now();
    this.ending = null;
  }

  /** Say that it is in use: it is idle since now. */
  touch() {
    this.active = now();
  }

  /** Note that it is closed; the first time counts, and why we ended it goes before `reason`. */
  close(reason = 'server') {
    this.streams.closed(this, this.ending || reason);
  }
}

class Streams {
  constructor(environ, warn) {
    this.limit = null;
    const given = environ.MAX_SSE_CONNECTIONS;
    if (given) {
      if (/^[1-9]\d{0,5}$/.test(given)) this.limit = Number(given);
      else warn(`MAX_SSE_CONNECTIONS=${given.slice(0, 20)}: must be a whole number above 0; there is no limit`);
    }
    this.open = new Set();
    this.opened = 0;
    this.rejected = 0;
    this.ended = {};
    for (const reason of REASONS) this.ended[reason] = 0;
    this.durations = new Histogram(BOUNDS);
  }

  limitTo(most) {
    if (!Number.isInteger(most) || most < 1) throw new RangeError(`maxStreams ${String(most)}: must be a whole number above 0`);
    this.limit = most;
  }

  /** Whether one more would be too many; a noticed one that is refused for it is counted by `reject`. */
  full() {
    return this.limit !== null && this.open.size >= this.limit;
  }

  reject() {
    this.rejected++;
  }

  add(name, evict) {
    const stream = new Stream(this, name, evict);
    this.open.add(stream);
    this.opened++;
    return stream;
  }

  /** A stream of the application's own, which is never refused. */
  stream(name, { evict } = {}) {
    check.name('stream', name);
    check.functions(`stream '${name}'`, { evict }, [], ['evict']);
    return this.add(name, evict);
  }

  closed(stream, reason) {
    if (!this.open.delete(stream)) return;
    this.ended[reason in this.ended ? reason : 'error']++;
    this.durations.add(now() - stream.opened);
  }

  /** The step `streams`: end those without an event for 5 s, longest idle first; a quarter of all at least. */
  take(name) {
    const began = now();
    const among = [...this.open].filter((stream) => stream.evict && !stream.ending && (name === null || stream.name === name));
    if (!among.length) return answer('skipped', 'nothing_registered');
    const ordered = among.sort((one, other) => one.active - other.active);
    const idle = ordered.filter((stream) => began - stream.active >= IDLE).length;
    const chosen = ordered.slice(0, Math.max(idle, Math.ceil(ordered.length / 4)));
    const failed = [];
    for (const stream of chosen) {
      stream.ending = 'evicted';
      try {
        const pending = stream.evict();
        if (pending && typeof pending.then === 'function') pending.then(undefined, () => undefined);
        stream.close();
      } catch (error) {
        stream.ending = null;
        failed.push(text(error));
      }
    }
    const seconds = now() - began;
    const details = { asked: chosen.length, closed: chosen.length - failed.length, left: this.open.size };
    if (failed.length) details.failed = failed.slice(0, 5);
    return answer(failed.length === chosen.length ? 'failed' : 'done', '', { seconds, stall: seconds, details });
  }

  reading() {
    const [oldest] = this.open; // a Set keeps the order in which they were opened
    const { bounds, counts, sum } = this.durations;
    return {
      open: this.open.size,
      limit: this.limit,
      opened: this.opened,
      closed: { ...this.ended },
      rejected: this.rejected,
      oldest_age: oldest === undefined ? null : now() - oldest.opened,
      duration: { bounds, counts: [...counts], sum },
    };
  }
}

module.exports = { Streams };
