'use strict';
// The caches that the application registered: how large they are, and clearing them.
//
// The callbacks are the application's. They may throw, lie, never end or call the guard.

const check = require('./check.js');
const { answer, text } = require('./answer.js');
const { now, within } = require('./time.js');

/** Seconds that one asynchronous `clear` may take; the hook goes on without it then. */
const LONGEST = 10;
const COUNTS = ['evictions', 'expired', 'max_bytes'];

class Caches {
  constructor(warn) {
    this.warn = warn;
    this.caches = new Map();
  }

  /** Add a cache, or replace the one of this name, which is noted as a warning. Throws for a wrong argument. */
  register(name, options) {
    check.name('cache', name);
    check.functions(`cache '${name}'`, options, ['clear'], ['size', 'entries', 'expire']);
    if (this.caches.has(name)) this.warn(`cache '${name}' was registered again: the later one counts`);
    this.caches.set(name, options);
  }

  names() {
    return [...this.caches.keys()];
  }

  reading() {
    return [...this.caches].map(([name, cache]) => {
      const told = { name, bytes: ask(cache.size), entries: ask(cache.entries) };
      const counts = cache.counts ? cache.counts() : {};
      for (const count of COUNTS) if (counts[count] !== undefined) told[count] = counts[count];
      return told;
    });
  }

  /** The step `caches`: expired entries of each are dropped, then all of it; `name` restricts it to one. */
  async take(name) {
    if (name !== null && !this.caches.has(name)) {
      return answer('skipped', 'nothing_registered', { details: { missing: name.slice(0, 100) } });
    }
    if (this.caches.size === 0) return answer('skipped', 'nothing_registered');
    const began = now();
    const cleared = [];
    const failed = {};
    let bytes = null;
    let stall = 0;
    for (const [key, cache] of [...this.caches]) {
      if (name !== null && key !== name) continue;
      const before = ask(cache.size);
      const called = now();
      try {
        const pending = [cache.expire && cache.expire(), cache.clear()];
        stall += now() - called;
        // Both have begun; an expiry that fails is no reason to keep what was to be cleared.
        await within(Promise.all(pending), LONGEST, `clear did not end within ${LONGEST} s`);
      } catch (error) {
        failed[key] = text(error);
        continue;
      }
      cleared.push(key);
      const after = ask(cache.size);
      if (before !== null && after !== null) bytes = (bytes || 0) + before - after;
    }
    const seconds = now() - began;
    const count = Object.keys(failed).length;
    const details = { cleared, ...(count && { failed }), ...(bytes !== null && { bytes }) };
    return answer(count && !cleared.length ? 'failed' : 'done', count ? `${count} threw` : '', { seconds, stall, details });
  }
}

/** What a callback tells, if it is a size; null otherwise. */
function ask(callback) {
  if (callback === undefined) return null;
  try {
    const value = callback();
    return Number.isSafeInteger(value) && value >= 0 ? value : null;
  } catch {
    return null;
  }
}

module.exports = { Caches };
