'use strict';
const assert = require('node:assert');
const { test } = require('node:test');
const { start } = require('../../exporter/node/index.js');
const { hello } = require('../../exporter/node/lib/hello.js');
const { version } = require('../../exporter/node/package.json');

test('the version that the sidecar is told is that of the package', () => {
  assert.strictEqual(hello('').hook_version, version);
});

test('there is one guard, however often it is started, also by another copy of the package', () => {
  const guard = start();
  const place = require.resolve('../../exporter/node/index.js');
  for (const name of Object.keys(require.cache)) if (name.includes('exporter/node')) delete require.cache[name];
  assert.strictEqual(require(place).start(), guard);
  assert.strictEqual(start(), guard);
});

test('wrong options throw at once', () => {
  assert.throws(() => start({ maxStreams: 0 }), /maxStreams 0: must be a whole number above 0/);
  assert.throws(() => start({ shedAbove: 'much' }), RangeError);
  assert.throws(() => start().model('m', {}), /model 'm': load must be a function, not undefined/);
  assert.throws(() => start().model('m', { load() {}, isolate: true }), /isolate is for Python/);
});

test('the health is told in the form of the sidecar', () => {
  const told = start().health();
  assert.ok(['healthy', 'degraded', 'critical'].includes(told.status));
  assert.ok(told.memory_mb > 10 && told.memory_mb <= told.memory_limit_mb);
  assert.deepStrictEqual([told.models_loaded, told.streams_open, told.shedding], [0, 0, false]);
});

test('it can be stopped and started again, and keeps what was registered', () => {
  const guard = start();
  guard.cache('kept', { clear() {} });
  guard.stop();
  guard.stop();
  assert.strictEqual(guard.status().state, 'stopped');
  assert.deepStrictEqual(start().status().caches, ['kept']);
  guard.stop();
});
