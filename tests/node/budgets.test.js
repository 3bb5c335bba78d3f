'use strict';
const assert = require('node:assert');
const { test } = require('node:test');
const { setTimeout: sleep } = require('node:timers/promises');
const { BudgetExceeded } = require('../../exporter/node/index.js');
const { Budgets } = require('../../exporter/node/lib/budgets.js');
const { Limits } = require('../../exporter/node/lib/limits.js');
const { parseGoal, parseLimit, parseSize } = require('../../exporter/node/lib/size.js');

const MIB = 2 ** 20;

test('a budget refuses what goes beyond it, and says what is left', async () => {
  const budget = new Budgets(() => {}).get('weights', { limit: '200MiB' });
  const held = budget.reserve(150 * MIB);
  assert.strictEqual(budget.canReserve(50 * MIB), true);
  assert.throws(() => budget.reserve(100 * MIB), (error) => {
    assert.ok(error instanceof BudgetExceeded);
    assert.deepStrictEqual([error.asked, error.left], [100 * MIB, 50 * MIB]);
    return error.message === "budget 'weights': 100 MiB asked for, 50 MiB of 200 MiB left";
  });
  held.release();
  held.release();
  assert.strictEqual(budget.reserved, 0);
  await assert.rejects(budget.use(MIB, () => { throw new Error('mine'); }), /mine/);
  assert.deepStrictEqual([budget.reserved, budget.refused], [0, 1]);
});

test('a budget warns at 80 % and is critical at 90 %', () => {
  const budgets = new Budgets(() => {});
  const budget = budgets.get('b', { limit: 100 });
  const states = [79, 1, 9, 1].map((bytes) => { budget.reserve(bytes); return budget.state; });
  assert.deepStrictEqual(states, ['ok', 'warning', 'warning', 'critical']);
  assert.deepStrictEqual(budgets.reading(), [{ name: 'b', limit: 100, reserved: 90, refused: 0, state: 'critical' }]);
});

test('a budget is the same one each time it is named', () => {
  const warnings = [];
  const budgets = new Budgets((text) => warnings.push(text));
  assert.strictEqual(budgets.get('b', { limit: 100 }), budgets.get('b', { limit: 100 }));
  assert.strictEqual(budgets.get('b', { limit: 200 }).limit, 200);
  assert.strictEqual(warnings.length, 1);
  assert.throws(() => budgets.get('c', {}), /budget 'c': limit undefined/);
});

test('at most so many run at once, the others in the order in which they came', async () => {
  const limit = new Limits({}, () => {}).get('agents', 2);
  let running = 0;
  let most = 0;
  const order = [];
  await Promise.all(Array.from({ length: 8 }, (_, index) => limit.use(async () => {
    order.push(index);
    most = Math.max(most, ++running);
    await sleep(2);
    running--;
  })));
  assert.strictEqual(most, 2);
  assert.deepStrictEqual(order, [0, 1, 2, 3, 4, 5, 6, 7]);
  assert.deepStrictEqual([limit.inUse, limit.line.length, limit.waited], [0, 0, 6]);
});

test('a run that throws gives its place back', async () => {
  const limit = new Limits({}, () => {}).get('agents', 1);
  await assert.rejects(limit.use(() => { throw new Error('mine'); }), /mine/);
  assert.strictEqual(await limit.use(() => 'next'), 'next');
});

test('a limit without a number takes MAX_CONCURRENT_AGENTS', () => {
  assert.strictEqual(new Limits({ MAX_CONCURRENT_AGENTS: '3' }, () => {}).get('agents').limit, 3);
  assert.throws(() => new Limits({}, () => {}).get('agents'), /MAX_CONCURRENT_AGENTS/);
});

test('a limit that is raised lets those in who wait, one that is lowered holds them back', async () => {
  const limits = new Limits({}, () => {});
  const limit = limits.get('agents', 1);
  const leave = [];
  for (let index = 0; index < 3; index++) limit.use(() => new Promise((resolve) => leave.push(resolve)));
  await sleep(1);
  assert.strictEqual(leave.length, 1);
  limits.get('agents', 3);
  await sleep(1);
  assert.deepStrictEqual([leave.length, limit.inUse], [3, 3]);
  limits.get('agents', 1);
  const last = limit.use(() => 'last');
  leave.forEach((one) => one());
  assert.strictEqual(await last, 'last');
  assert.strictEqual(limit.inUse, 0);
});

test('sizes are read as people write them', () => {
  assert.deepStrictEqual([parseGoal('70%'), parseGoal(0.7), parseGoal('450MiB')], [{ ratio: 0.7 }, { ratio: 0.7 }, { size: 450 * MIB }]);
  assert.strictEqual(parseSize('x', '1.5kB'), 1500);
  assert.deepStrictEqual([parseLimit('1GiB', '5'), parseLimit('', '5'), parseLimit('80%', '5'), parseLimit(undefined, undefined)], [2 ** 30, 5 * MIB, null, null]);
  for (const wrong of ['', '5', '0%', '101%', 'x', '5 parsecs', -1]) assert.throws(() => parseGoal(wrong), RangeError);
});
