'use strict';
const assert = require('node:assert');
const { execFileSync } = require('node:child_process');
const { test } = require('node:test');
const { MIB, oldLimit } = require('../../exporter/node/lib/heap.js');
const { NearLimit, threshold } = require('../../exporter/node/lib/nearlimit.js');

const LIMIT = 1000 * MIB;

/** An old generation of so many MiB, of which `live` are no garbage; relieving gives `gives`. */
function heap({ old, live, gives = 0, seconds = 0 }) {
  const told = { old, live, collected: 0, relieved: 0 };
  const collect = () => {
    told.collected++;
    told.old = told.live;
    return seconds;
  };
  const near = new NearLimit(LIMIT, () => told.old * MIB, collect, async () => {
    told.relieved++;
    told.live -= gives;
    told.old = told.live;
  });
  return { told, near };
}

test('far from the limit nothing happens', async () => {
  const { told, near } = heap({ old: 740, live: 740 });
  await near.look(true);
  await near.look(false);
  assert.deepStrictEqual([told.collected, told.relieved], [0, 0]);
});

test('what lives near the limit is relieved', async () => {
  for (const full of [true, false]) {
    const { told, near } = heap({ old: 760, live: 760, gives: 300 });
    await near.look(full);
    assert.strictEqual(told.relieved, 1);
  }
});

test('garbage near the limit is collected and nothing else is taken', async () => {
  const { told, near } = heap({ old: 790, live: 300 });
  await near.look(false);
  assert.deepStrictEqual([told.collected, told.relieved], [1, 0]);
});

test('where V8 counts collections that give nothing, none is ordered', async () => {
  const { told, near } = heap({ old: 850, live: 850, gives: 300 });
  await near.look(false);
  assert.deepStrictEqual([told.collected, told.relieved], [0, 0]);
  await near.look(true);
  assert.deepStrictEqual([told.collected, told.relieved], [0, 1]);
  const last = heap({ old: 910, live: 910, gives: 300 });
  await last.near.look(false);
  assert.deepStrictEqual([last.told.collected, last.told.relieved], [0, 1]);
});

test('its own collections are rare; meanwhile a full one of V8 is believed', async () => {
  const { told, near } = heap({ old: 790, live: 300, seconds: 10 });
  for (let turn = 0; turn < 50; turn++) {
    told.old = 790;
    await near.look(false);
  }
  assert.deepStrictEqual([told.collected, told.relieved], [1, 0]);
  told.old = told.live = 790;
  await near.look(true);
  assert.strictEqual(told.relieved, 1);
});

test('where relieving does not help it is not repeated until the heap has grown', async () => {
  const { told, near } = heap({ old: 780, live: 780 });
  for (let turn = 0; turn < 20; turn++) await near.look(turn % 2 === 0);
  assert.strictEqual(told.relieved, 1);
  told.old = told.live = 805;
  await near.look(true);
  assert.strictEqual(told.relieved, 2);
});

test('a small heap keeps room for one young generation', () => {
  assert.strictEqual(threshold(128 * MIB), 96 * MIB);
  assert.strictEqual(threshold(64 * MIB), 40 * MIB);
  assert.strictEqual(threshold(1000 * MIB), 750 * MIB);
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
