'use strict';
// V8's heap: its reading, and how near it is to the size at which V8 ends the process.

const v8 = require('v8');

const MIB = 1 << 20;
const [V8_MAJOR] = process.versions.v8.split('.').map(Number);
/** Largest semi-space in MiB; V8 reserves three of them (two, and one for large young objects). */
const SEMI_SPACE = V8_MAJOR >= 13 ? 64 : 16;
/** Without a flag V8 makes a semi-space the old generation's size divided by this. */
const SEMI_SPACE_RATIO = V8_MAJOR >= 13 ? 64 : 128;

/**
 * Bytes of the old generation at which V8 gives up ("Reached heap limit").
 *
 * heap_size_limit, which V8 tells, contains the young generation: with --max-old-space-size=128 it says 176 MiB (Node
 * 18 to 22) or 320 MiB (24), and the process dies at 128. `words` are the options of the command line and NODE_OPTIONS.
 */
function oldLimit(words = options(), limit = v8.getHeapStatistics().heap_size_limit) {
  const old = flag(words, 'max-old-space-size');
  if (old > 0) return Math.min(old * MIB, limit);
  const semi = flag(words, 'max-semi-space-size');
  if (semi > 0) return limit - 3 * semi * MIB;
  if (words.some((word) => /^--max[-_]old[-_]space[-_]size[-_]percentage/.test(word))) return limit - 3 * SEMI_SPACE * MIB;
  return limit / (1 + 3 / SEMI_SPACE_RATIO);
}

/** Value of a V8 option; the last one counts, and the command line comes after NODE_OPTIONS. NaN: it is not set. */
function flag(words, name) {
  let value = NaN;
  words.forEach((word, index) => {
    const [key, given] = word.split('=');
    if (key.replace(/_/g, '-') === `--${name}`) value = Number(given === undefined ? words[index + 1] : given);
  });
  return value;
}

function options() {
  return [...(process.env.NODE_OPTIONS || '').split(/\s+/), ...process.execArgv];
}

/** Bytes in use in the old generation: 4 microseconds. What is young is mostly garbage, and has not to fit there. */
function old() {
  let bytes = 0;
  for (const space of v8.getHeapSpaceStatistics()) {
    if (!space.space_name.startsWith('new_') && space.space_name !== 'read_only_space') bytes += space.space_used_size;
  }
  return bytes;
}

function used() {
  return v8.getHeapStatistics().used_heap_size;
}

/** Take the `heap` part of a reading: 25 microseconds. */
function reading() {
  const heap = v8.getHeapStatistics();
  const memory = process.memoryUsage();
  return {
    used: heap.used_heap_size,
    size: heap.total_heap_size,
    limit: heap.heap_size_limit,
    external: memory.external,
    array_buffers: memory.arrayBuffers,
    spaces: v8.getHeapSpaceStatistics()
      .filter((space) => space.space_size > 0)
      .map((space) => ({ name: space.space_name, used: space.space_used_size, size: space.space_size })),
  };
}

module.exports = { oldLimit, old, used, reading, MIB };
