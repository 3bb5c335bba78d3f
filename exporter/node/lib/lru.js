'use strict';
// A mapping that is bounded in bytes: the entry that was not used for longest goes first.

const check = require('./check.js');
const { parseSize } = require('./size.js');

/** What a Map's entry costs beside key and value. */
const ENTRY = 64;
const OBJECT = 32;
/** Values inside a value that are looked at; what lies beyond is not counted. */
const MOST = 10000;

class Lru {
  constructor(name, { maxBytes, maxItems, sizeOf } = {}) {
    const what = `lru '${name}'`;
    this.maxBytes = parseSize(`${what}: maxBytes`, maxBytes);
    this.maxItems = check.number(`${what}: maxItems`, maxItems, 1, Infinity);
    check.functions(what, { sizeOf }, [], ['sizeOf']);
    this.sizeOf = sizeOf || ((value, key) => estimate(value) + estimate(key));
    this.entries = new Map();
    this.bytes = 0;
    this.evictions = 0;
    this.hits = 0;
    this.misses = 0;
  }

  get size() {
    return this.entries.size;
  }

  get(key) {
    const entry = this.entries.get(key);
    if (entry === undefined) {
      this.misses++;
      return undefined;
    }
    this.hits++;
    this.entries.delete(key);
    this.entries.set(key, entry);
    return entry.value;
  }

  has(key) {
    return this.entries.has(key);
  }

  /** Keep a value; one that is larger than `maxBytes` by itself is not kept. `sizeOf` may throw: then nothing is kept. */
  set(key, value) {
    this.delete(key);
    const bytes = ENTRY + Number(this.sizeOf(value, key));
    if (!(bytes <= this.maxBytes)) return this;
    this.entries.set(key, { value, bytes });
    this.bytes += bytes;
    for (const oldest of this.entries.keys()) {
      if (this.bytes <= this.maxBytes && this.entries.size <= this.maxItems) break;
      this.delete(oldest);
      this.evictions++;
    }
    return this;
  }

  delete(key) {
    const entry = this.entries.get(key);
    if (entry === undefined) return false;
    this.entries.delete(key);
    this.bytes -= entry.bytes;
    return true;
  }

  clear() {
    this.entries.clear();
    this.bytes = 0;
  }

  /** What the guard registers as a cache. */
  cache() {
    return {
      clear: () => this.clear(),
      size: () => this.bytes,
      entries: () => this.entries.size,
      counts: () => ({ evictions: this.evictions, max_bytes: this.maxBytes }),
    };
  }
}

/** Roughly the bytes that a value holds: numbers 8, texts 2 a character, what buffers and views have, and what is inside. */
function estimate(value) {
  const seen = new Set();
  const left = [value];
  let bytes = 0;
  for (let count = 0; left.length && count < MOST; count++) {
    const one = left.pop();
    if (typeof one === 'string') bytes += 2 * one.length;
    else if (one === null || (typeof one !== 'object' && typeof one !== 'function')) bytes += 8;
    else if (!seen.has(one)) {
      seen.add(one);
      bytes += OBJECT;
      if (ArrayBuffer.isView(one) || one instanceof ArrayBuffer) bytes += one.byteLength;
      else if (one instanceof Map) for (const pair of one) left.push(...pair);
      else if (Array.isArray(one) || one instanceof Set) for (const inner of one) left.push(inner);
      else for (const [key, inner] of Object.entries(one)) left.push(key, inner);
    }
  }
  return bytes;
}

module.exports = { Lru };
