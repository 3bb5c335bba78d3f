'use strict';
const assert = require('node:assert');
const { execFileSync } = require('node:child_process');
const { test } = require('node:test');
const { MIB, oldLimit } = require('../../exporter/node/lib/heap.js');
const { NearLimit, threshold } = require('../../exporter/node/lib/nearlimit.js');

const LIMIT = 1000 * MIB;

/** A heap of so many MiB, of which `live` are no garbage; relieving gives `gives`. */
function heap({ used, live, gives = 0 }) {
  const told = { used, live, collected: 0, relieved: 0 };
  const near = new NearLimit(LIMIT, () => told.used * MIB, () => { told.collected++; told.used = told.live; },
    async () => { told.relieved++; told.live -= gives; told.used = told.live; });
  return { told, near };
}

test('far from the limit nothing happens', async () => {
  const { told, near } = heap({ used: 840, live: 840 });
  await near.look(true);
  await near.look(false);
  assert.deepStrictEqual([told.collected, told.relieved], [0, 0]);
});

test('what lives near the limit is relieved', async () => {
  const { told, near } = heap({ used: 860, live: 860, gives: 300 });
  await near.look(true);
  assert.strictEqual(told.relieved, 1);
});

test('garbage near the limit is collected and nothing else is taken', async () => {
  const { told, near } = heap({ used: 950, live: 300 });
  await near.look(false);
  assert.deepStrictEqual([told.collected, told.relieved], [1, 0]);
});

test('after a scavenge near the limit it collects, and relieves where that did not help', async () => {
  const { told, near } = heap({ used: 950, live: 900, gives: 500 });
  await near.look(false);
  assert.deepStrictEqual([told.collected, told.relieved], [1, 1]);
});

test('where relieving does not help it is not repeated until the heap has grown', async () => {
  const { told, near } = heap({ used: 880, live: 880 });
  for (let turn = 0; turn < 20; turn++) await near.look(turn % 2 === 0);
  assert.strictEqual(told.relieved, 1);
  assert.ok(told.collected <= 1);
  told.used = told.live = 905;
  await near.look(true);
  assert.strictEqual(told.relieved, 2);
});

test('a small heap keeps room for one young generation', () => {
  assert.strictEqual(threshold(128 * MIB), 104 * MIB);
  assert.strictEqual(threshold(1000 * MIB), 850 * MIB);
  assert.strictEqual(threshold(50 * MIB), 35 * MIB);
});

test("V8's limit is that of the old generation, however it was set", () => {
  const told = (...flags) => {
    const code = `process.stdout.write(String(require(${JSON.stringify(require.resolve('../../exporter/node/lib/heap.js'))}).oldLimit() / 2 ** 20))`;
    return Number(execFileSync(process.execPath, [...flags, '-e', code], { env: { PATH: process.env.PATH } }));
  };
  assert.strictEqual(told('--max-old-space-size=128'), 128);
  assert.strictEqual(told('--max_old_space_size=128', '--max-semi-space-size=2'), 128);
  assert.strictEqual(told('--max-old-space-size=64', '--max-old-space-size=300'), 300);
  assert.strictEqual(told('--max-semi-space-size=4') % 1, 0);
  assert.ok(oldLimit([], 4144 * MIB) <= 4144 * MIB && oldLimit([], 4144 * MIB) > 3900 * MIB);
  assert.strictEqual(oldLimit(['--max-old-space-size', '200'], 4144 * MIB), 200 * MIB);
});
