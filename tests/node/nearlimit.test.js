'use strict';
const assert = require('node:assert');
const { execFileSync } = require('node:child_process');
const { test } = require('node:test');
const { MIB, oldLimit } = require('../../exporter/node/lib/heap.js');
const { NearLimit, threshold } = require('../../exporter/node/lib/nearlimit.js');

const LIMIT = 1000 * MIB;

/** A heap of so many MiB, of which `live` are no garbage; relieving gives `gives`. A collection takes `seconds`. */
function heap({ old, young = 0, live, gives = 0, seconds = 0 }) {
  const told = { old, young, live, collected: 0, relieved: 0 };
  const collect = () => {
    told.collected++;
    [told.old, told.young] = [told.live, 0];
    return seconds;
  };
  const near = new NearLimit(LIMIT, () => ({ old: told.old * MIB, young: told.young * MIB }), collect, async () => {
    told.relieved++;
    told.live -= gives;
    collect();
  });
  return { told, near };
}

test('far from the limit nothing happens, however much is young', async () => {
  const { told, near } = heap({ old: 840, young: 150, live: 840 });
  await near.look(true);
  await near.look(false);
  assert.deepStrictEqual([told.collected, told.relieved], [0, 0]);
});

test('what lives near the limit is relieved', async () => {
  const { told, near } = heap({ old: 860, live: 860, gives: 300 });
  await near.look(false);
  assert.strictEqual(told.relieved, 1);
});

test('garbage near the limit is collected and nothing else is taken', async () => {
  for (const full of [true, false]) {
    const { told, near } = heap({ old: 950, live: 300 });
    await near.look(full);
    assert.deepStrictEqual([told.collected, told.relieved], [1, 0]);
  }
});

test('a young generation that would not fit any more is collected before it is believed', async () => {
  const { told, near } = heap({ old: 800, young: 250, live: 900, gives: 500 });
  await near.look(false);
  assert.strictEqual(told.relieved, 1);
  const garbage = heap({ old: 800, young: 250, live: 800 });
  await garbage.near.look(false);
  assert.deepStrictEqual([garbage.told.collected, garbage.told.relieved], [1, 0]);
});

test('its own collections are rare; meanwhile a full one of V8 is believed', async () => {
  const { told, near } = heap({ old: 950, live: 300, seconds: 10 });
  for (let turn = 0; turn < 50; turn++) {
    told.old = 950;
    await near.look(false);
  }
  assert.deepStrictEqual([told.collected, told.relieved], [1, 0]);
  told.old = told.live = 860;
  await near.look(true);
  assert.strictEqual(told.relieved, 1);
});

test('where relieving does not help it is not repeated until the heap has grown', async () => {
  const { told, near } = heap({ old: 880, live: 880 });
  for (let turn = 0; turn < 20; turn++) await near.look(turn % 2 === 0);
  assert.strictEqual(told.relieved, 1);
  told.old = told.live = 905;
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
