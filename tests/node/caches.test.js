'use strict';
const assert = require('node:assert');
const { test } = require('node:test');
const { Caches } = require('../../exporter/node/lib/caches.js');
const { Lru } = require('../../exporter/node/lib/lru.js');

function caches() {
  const warnings = [];
  return { warnings, caches: new Caches((text) => warnings.push(text)) };
}

test('all caches are cleared, expired entries first, and what they gave is told by their sizes', async () => {
  const { caches: all } = caches();
  const order = [];
  let size = 1000;
  all.register('one', { expire: () => order.push('expire'), clear: () => { order.push('clear'); size = 100; }, size: () => size });
  all.register('two', { clear: async () => { await null; order.push('two'); } });
  const answer = await all.take(null);
  assert.deepStrictEqual(order, ['expire', 'clear', 'two']);
  assert.strictEqual(answer.status, 'done');
  assert.deepStrictEqual(answer.details, { cleared: ['one', 'two'], bytes: 900 });
});

test('a name restricts the step to one cache, and an unknown one is said to be so', async () => {
  const { caches: all } = caches();
  const cleared = [];
  for (const name of ['one', 'two']) all.register(name, { clear: () => cleared.push(name) });
  await all.take('two');
  assert.deepStrictEqual(cleared, ['two']);
  assert.strictEqual((await all.take('three')).reason, 'nothing_registered');
  assert.strictEqual((await new Caches(() => {}).take(null)).reason, 'nothing_registered');
});

test('callbacks that throw anything, or reject, are told and hold up nobody', async () => {
  const { caches: all } = caches();
  const cleared = [];
  all.register('throws', { clear: () => { throw null; } });
  all.register('rejects', { clear: () => Promise.reject(new Error('no')) });
  all.register('strange', { clear: () => { throw { toString() { throw new Error(); } }; } });
  all.register('good', { clear: () => cleared.push('good') });
  const answer = await all.take(null);
  assert.deepStrictEqual(cleared, ['good']);
  assert.strictEqual(answer.status, 'done');
  assert.deepStrictEqual(Object.keys(answer.details.failed), ['throws', 'rejects', 'strange']);
});

test('sizes that lie or throw are left unknown', () => {
  const { caches: all } = caches();
  const lies = [() => -1, () => NaN, () => Infinity, () => 'many', () => 1.5, () => { throw new Error(); }, () => Promise.resolve(1)];
  lies.forEach((size, index) => all.register(`lie ${index}`, { clear() {}, size }));
  for (const told of all.reading()) assert.strictEqual(told.bytes, null);
});

test('a name that is taken is replaced and warned about, a wrong argument throws at once', () => {
  const { caches: all, warnings } = caches();
  all.register('one', { clear() {} });
  all.register('one', { clear() {} });
  assert.match(warnings[0], /'one' was registered again/);
  assert.throws(() => all.register('', { clear() {} }), RangeError);
  assert.throws(() => all.register(3, { clear() {} }), TypeError);
  assert.throws(() => all.register('two', { clear: 3 }), /cache 'two': clear must be a function, not number/);
  assert.throws(() => all.register('two', null), TypeError);
});

test('an lru stays within its bytes and gives up what was not used for longest', () => {
  const lru = new Lru('vectors', { maxBytes: '1MiB' });
  for (let index = 0; index < 100; index++) {
    lru.set(index, Buffer.alloc(100_000));
    assert.ok(lru.bytes <= 2 ** 20);
    assert.ok(lru.get(0) !== undefined, 'the one that is used stays');
  }
  assert.strictEqual(lru.size, 10);
  assert.strictEqual(lru.evictions, 90);
  assert.deepStrictEqual([...lru.entries.keys()].slice(0, 1), [91]);
  lru.delete(0);
  lru.cache().clear();
  assert.deepStrictEqual([lru.size, lru.bytes, lru.get(5)], [0, 0, undefined]);
});

test('an lru counts items, replaced values and values larger than itself rightly', () => {
  const lru = new Lru('few', { maxBytes: 10_000, maxItems: 2 });
  lru.set('a', 'x').set('b', 'x').set('c', 'x');
  assert.deepStrictEqual([lru.has('a'), lru.size, lru.evictions], [false, 2, 1]);
  const before = lru.bytes;
  lru.set('b', 'y');
  assert.strictEqual(lru.bytes, before);
  lru.set('b', 'x'.repeat(20_000));
  assert.deepStrictEqual([lru.has('b'), lru.has('c')], [false, true], 'too large: not kept, and nothing else goes for it');
  assert.throws(() => new Lru('bad', { maxBytes: 'much' }), /lru 'bad': maxBytes much/);
});

test('an estimate sees what is inside, and ends on circles', () => {
  const lru = new Lru('nested', { maxBytes: '100MB' });
  const circle = { map: new Map([['key', new Float32Array(1000)]]), list: ['text', 3, null] };
  circle.self = circle;
  lru.set('one', circle);
  assert.ok(lru.bytes > 4000 && lru.bytes < 5000, String(lru.bytes));
});
