'use strict';
const assert = require('node:assert');
const { test } = require('node:test');
const { MAX_LINE, MalformedError, RefusedError, encode, parse } = require('../../exporter/node/lib/protocol.js');

test('a question is read with whatever else it holds', () => {
  const question = { id: 7, ask: 'step', step: 'caches', unknown: [1] };
  assert.deepStrictEqual(parse(JSON.stringify(question), false), question);
  assert.strictEqual(parse('{"id": "a", "ask": "reading"}', false).id, 'a');
});

test('what is no question ends the connection', () => {
  const lines = ['', 'x', '[]', 'null', '3', '"text"', '{}', '{"id": 1}', '{"id": 1.5, "ask": "reading"}',
    '{"id": true, "ask": "reading"}', '{"id": 1, "ask": 2}', '{"error": 3}', '['.repeat(60000)];
  for (const line of lines) assert.throws(() => parse(line, true), MalformedError, line.slice(0, 40));
});

test('only the first line refuses the hook', () => {
  assert.throws(() => parse('{"error": "other version"}', true), RefusedError);
  assert.throws(() => parse('{"error": "other version"}', false), MalformedError);
});

test('a reading that is too long loses entries of its longest list, and says how many', () => {
  const caches = Array.from({ length: 3000 }, (_, index) => ({ name: `${index}`.padStart(90, 'x'), bytes: index }));
  const line = encode({ id: 1, reading: { caches, models: [{ name: 'kept' }] } });
  assert.ok(Buffer.byteLength(line) <= MAX_LINE);
  const { reading } = JSON.parse(line);
  assert.strictEqual(reading.caches.length + reading.caches_omitted, 3000);
  assert.strictEqual(reading.models.length, 1);
});

test('a step whose details are too long loses them', () => {
  const step = { step: 'caches', status: 'done', details: { cleared: Array(9000).fill('a name of a cache') } };
  assert.deepStrictEqual(JSON.parse(encode({ id: 1, step })).step.details, { omitted: 'longer than a line may be' });
});

test('a lone surrogate in a name does not spoil the line', () => {
  assert.ok(Buffer.from(encode({ id: 1, reading: { caches: [{ name: '\ud800' }] } })).toString('utf8').includes('\\ud800'));
});
