'use strict';
const assert = require('node:assert');
const { after, test } = require('node:test');
const { setTimeout: sleep } = require('node:timers/promises');
const { ModelUnavailable } = require('../../exporter/node/index.js');
const { Models } = require('../../exporter/node/lib/models.js');

// The hook's own timers keep no process alive, so this one does.
const alive = setInterval(() => {}, 1000);
after(() => clearInterval(alive));

function models() {
  const warnings = [];
  return new Models((text) => warnings.push(text), () => {});
}

async function until(condition) {
  for (let turn = 0; turn < 2000 && !condition(); turn++) await sleep(5);
  assert.ok(condition());
}

test('it is loaded once, however many ask at the same moment', async () => {
  let loads = 0;
  const model = models().register('m', { load: async () => { loads++; await sleep(20); return { loads }; } });
  const seen = await Promise.all(Array.from({ length: 50 }, () => model.use((value) => value)));
  assert.strictEqual(loads, 1);
  assert.strictEqual(new Set(seen).size, 1);
  const { state, uses, in_use, loads: counted } = model.reading();
  assert.deepStrictEqual([state, uses, in_use, counted], ['loaded', 50, 0, 1]);
});

test('the step unloads what is idle, and calls the application to do it', async () => {
  const all = models();
  const unloaded = [];
  const model = all.register('m', { load: () => ({ name: 'it' }), unload: (value) => unloaded.push(value.name), minResidency: 0 });
  await model.use(() => {});
  const answer = await all.take(null, 5);
  assert.deepStrictEqual(Object.keys(answer.details.unloaded), ['m']);
  assert.deepStrictEqual(unloaded, ['it']);
  assert.deepStrictEqual([model.state, model.reading().unloads, model.reading().bytes], ['unloaded', 1, null]);
  assert.strictEqual(await model.use((value) => value.name), 'it');
  assert.strictEqual(model.counts.loads, 2);
});

test('one in use is waited for, and is busy when that takes too long', async () => {
  const all = models();
  const model = all.register('m', { load: () => 1, minResidency: 0 });
  let leave;
  const using = model.use(() => new Promise((resolve) => { leave = resolve; }));
  await until(() => leave);
  assert.deepStrictEqual((await all.take(null, 0.02)).details.busy, ['m']);
  assert.strictEqual(model.reading().busy, 1);
  const taking = all.take(null, 5);
  await sleep(10);
  assert.strictEqual(model.state, 'loaded');
  leave();
  await using;
  assert.deepStrictEqual(Object.keys((await taking).details.unloaded), ['m']);
});

test('a model that was loaded a moment ago stays, unless it is named', async () => {
  const all = models();
  const model = all.register('m', { load: () => 1 });
  await model.use(() => {});
  assert.deepStrictEqual((await all.take(null, 5)).details.fresh, ['m']);
  assert.strictEqual(model.state, 'loaded');
  assert.deepStrictEqual(Object.keys((await all.take('m', 5)).details.unloaded), ['m']);
  assert.strictEqual(model.state, 'unloaded');
});

test('it is unloaded by a timer when idle, and not while it is used', async () => {
  const model = models().register('m', { load: () => 1, idleTimeout: 0.05, minResidency: 0 });
  const using = model.use(() => sleep(150));
  await sleep(120);
  assert.strictEqual(model.state, 'loaded');
  await using;
  await until(() => model.state === 'unloaded');
});

test('a load that fails gives everybody who waits its own error, then a back-off', async () => {
  const failure = new Error('no weights');
  let fails = true;
  const model = models().register('m', { load: async () => { await sleep(5); if (fails) throw failure; return 'good'; } });
  const results = await Promise.allSettled([model.use(() => {}), model.use(() => {})]);
  for (const { reason } of results) assert.strictEqual(reason, failure);
  await assert.rejects(model.use(() => {}), (error) => {
    assert.ok(error instanceof ModelUnavailable);
    assert.match(error.message, /model 'm' could not be loaded \(Error: no weights\); the next try is in \d/);
    assert.ok(error.retryAfter > 0 && error.retryAfter <= 1);
    return error.cause === failure;
  });
  assert.deepStrictEqual([model.state, model.counts.failures, model.inUse], ['failed', 1, 0]);
  fails = false;
  model.retryAt = 0;
  assert.strictEqual(await model.use((value) => value), 'good');
});

test('a disabled model gives its fallback, or says that it is disabled', async () => {
  const all = models();
  const load = () => assert.fail('it must not be loaded');
  assert.strictEqual(await all.register('a', { load, enabled: false, fallback: async () => 'small' }).use((value) => value), 'small');
  await assert.rejects(all.register('b', { load, enabled: false }).use(() => {}), /model 'b' is disabled/);
});

test('what the use throws comes out, and the model is free again', async () => {
  const model = models().register('m', { load: () => 1 });
  await assert.rejects(model.use(() => { throw new TypeError('mine'); }), /mine/);
  assert.strictEqual(model.inUse, 0);
});

test('an unload callback that throws is told, and the model is let go all the same', async () => {
  const all = models();
  const model = all.register('m', { load: () => 1, unload: () => { throw new Error('stuck'); }, minResidency: 0 });
  await model.use(() => {});
  const answer = await all.take(null, 5);
  assert.deepStrictEqual(answer.details.failed, { m: 'Error: stuck' });
  assert.strictEqual(model.state, 'unloaded');
});

test('whoever comes during an unload waits, and gets a fresh one', async () => {
  const all = models();
  let number = 0;
  const model = all.register('m', { load: () => ++number, unload: () => sleep(30), minResidency: 0 });
  await model.use(() => {});
  const taking = all.take(null, 5);
  await until(() => model.state === 'unloading');
  assert.strictEqual(await model.use((value) => value), 2);
  await taking;
});
