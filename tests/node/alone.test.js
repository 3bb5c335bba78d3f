'use strict';
const assert = require('node:assert');
const { afterEach, test } = require('node:test');
const { Alone } = require('../../exporter/node/lib/alone.js');

const MIB = 2 ** 20;
const made = [];
afterEach(() => made.splice(0).forEach((alone) => alone.stop()));

/** One that sees `used` of 100 MiB; each step gives what `gives` says. */
function alone({ used, gives = {}, environ = {}, configured = false, autonomous = true }) {
  const level = { used: used * MIB, limit: 100 * MIB, rss: used * MIB, origin: 'cgroup' };
  const taken = [];
  const one = new Alone(environ, {
    take: async (step) => { taken.push(step); level.used -= (gives[step] || 0) * MIB; return { status: 'done' }; },
    collect: () => 0,
    look: () => level,
    configured,
    autonomous,
  });
  made.push(one);
  return { one, taken, level };
}

test('below the high threshold it does nothing', async () => {
  const { one, taken } = alone({ used: 79 });
  await one.guard();
  assert.deepStrictEqual(taken, []);
});

test('from high on it takes what is cheap, and stops at the goal', async () => {
  const { one, taken } = alone({ used: 85, gives: { caches: 20 } });
  await one.guard();
  assert.deepStrictEqual(taken, ['caches']);
  assert.deepStrictEqual([one.runs, one.reason, one.backOff], [1, 'memory', 0]);
});

test('from critical on it takes everything, and waits when that was not enough', async () => {
  const { one, taken } = alone({ used: 95 });
  await one.guard();
  assert.deepStrictEqual(taken, ['caches', 'gc', 'streams', 'models', 'gc']);
  assert.strictEqual(one.backOff, 5);
});

test('the thresholds are those of the sidecar', async () => {
  const { one, taken } = alone({ used: 55, gives: { gc: 10 }, environ: { OOMGUARD_HIGH: '50%', OOMGUARD_GOAL: '50MiB' } });
  await one.guard();
  assert.deepStrictEqual(taken, ['caches', 'gc']);
});

test('it is on where nobody else guards: no sidecar, or one that has not asked for 10 s', () => {
  assert.strictEqual(alone({ used: 1 }).one.on, true);
  assert.strictEqual(alone({ used: 1, autonomous: false }).one.on, false);
  const { one } = alone({ used: 1, configured: true });
  assert.strictEqual(one.on, false);
  one.asked -= 11;
  assert.strictEqual(one.on, true);
  one.heard();
  assert.strictEqual(one.on, false);
});

test('it can be forbidden', () => {
  for (const environ of [{ MEMORY_CLEANUP: '0' }, { OOMGUARD_ACT: 'false' }, { OOMGUARD_ACT: ' Off ' }]) {
    assert.strictEqual(alone({ used: 1, environ }).one.acts(), false);
  }
  assert.strictEqual(alone({ used: 1, environ: { MEMORY_CLEANUP: '1' } }).one.acts(), true);
});
