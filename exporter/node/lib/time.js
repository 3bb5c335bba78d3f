'use strict';
// Clocks and timers, taken when the hook is loaded: a test that fakes the application's must not stop the hook's.

const { setTimeout, clearTimeout } = require('timers');
const { performance } = require('perf_hooks');

const milliseconds = performance.now.bind(performance);

/** Monotonic seconds. */
function now() {
  return milliseconds() / 1000;
}

/** Call `run` after `seconds`; the timer does not keep the process alive, and what `run` throws goes nowhere. */
function later(seconds, run) {
  const timer = setTimeout(quietly, Math.max(1, seconds * 1000), run);
  timer.unref();
  return timer;
}

function quietly(run) {
  try {
    const result = run();
    if (result && typeof result.then === 'function') result.then(undefined, () => undefined);
  } catch {
    // An error here is the hook's own: the application must not notice.
  }
}

function cancel(timer) {
  if (timer) clearTimeout(timer);
}

/**
 * Wait for `promise`, but no longer than `seconds`; rejects with an Error that says `text` then.
 *
 * The timer keeps nothing alive: a process that has nothing else to do ends meanwhile, as it would without the hook.
 */
function within(promise, seconds, text) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = later(seconds, () => reject(new Error(text)));
  });
  return Promise.race([promise, late]).finally(() => cancel(timer));
}

module.exports = { now, later, cancel, within };
