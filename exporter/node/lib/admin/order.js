'use strict';
// What a body asks for: an Alertmanager webhook payload of version 4, or {"steps": […], "goal": …}.
//
// The payload's fields are those of Alertmanager's documentation ("webhook_config"); unknown ones are accepted.

const { parseGoal } = require('../size.js');

/** In the order in which they are taken; what a hook has not is answered as unsupported, not refused. */
const LADDER = ['caches', 'gc', 'trim', 'streams', 'models', 'shed', 'restart'];
/** What an order without steps asks for. */
const DEFAULT = ['caches', 'gc', 'trim'];
const DECLINED = { unload: 'unsupported', restart: 'not_allowed', notify: 'notify' };
const ACTIONS = ['cleanup', ...Object.keys(DECLINED)];
const VERSION = '4';
const DEEPEST = 64;
const EXAMPLE = '{"steps": ["caches", "gc"], "goal": 0.7}';

/** The body is answered with an error, and nothing is done; `status` is HTTP's. */
class RefusedError extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

/**
 * Read a body; an empty one asks for every step. `target` is ours, empty where it is not known.
 *
 * Returns { steps, goals, declined }: a Set of steps, a list of goals ('all': none, take every step; 'default'), and
 * the number of a payload's alerts by why they were left out (null for the short form). Throws RefusedError.
 */
function parse(body, target) {
  let given;
  try {
    given = JSON.parse(body || '{}');
  } catch {
    throw new RefusedError(400, `the body is not JSON; send an Alertmanager payload or for example ${EXAMPLE}`);
  }
  if (depth(given) > DEEPEST) throw new RefusedError(400, `the body is nested more than ${DEEPEST} deep`);
  if (kind(given) !== 'an object') {
    throw new RefusedError(400, `the body is ${kind(given)}; send an Alertmanager payload or for example ${EXAMPLE}`);
  }
  return 'alerts' in given || 'version' in given ? payload(given, target) : short(given);
}

function short({ steps, goal }) {
  if (steps !== undefined && steps !== null && !(Array.isArray(steps) && steps.every((step) => typeof step === 'string'))) {
    throw new RefusedError(400, `steps is ${show(steps)}; send a list of names, for example ${EXAMPLE}`);
  }
  return { steps: known(steps), goals: [goalOf(goal, steps && steps.length ? 'all' : 'default')], declined: null };
}

function payload({ version, alerts }, target) {
  if (version !== VERSION) {
    throw new RefusedError(400, `version is ${show(version)}; only Alertmanager's payload version "4" is understood`);
  }
  if (!Array.isArray(alerts)) throw new RefusedError(400, `alerts is ${kind(alerts)}; it must be a list of objects`);
  const order = { steps: new Set(), goals: [], declined: {} };
  alerts.forEach((alert, index) => {
    const { why, steps, goal } = asked(alert, `alerts[${index}]`, target);
    if (why) {
      order.declined[why] = (order.declined[why] || 0) + 1;
    } else {
      for (const step of steps) order.steps.add(step);
      order.goals.push(goal);
    }
  });
  return order;
}

/** Steps and goal that one alert asks for, or why it is left out. */
function asked(alert, place, target) {
  if (kind(alert) !== 'an object') throw new RefusedError(400, `${place} is ${kind(alert)}; it must be an object`);
  const { status = 'firing' } = alert;
  const labels = alert.labels || {};
  if (status !== 'firing' && status !== 'resolved') {
    throw new RefusedError(400, `${place}: status is ${show(status)}; it must be "firing" or "resolved"`);
  }
  if (kind(labels) !== 'an object' || !Object.values(labels).every((value) => typeof value === 'string')) {
    throw new RefusedError(400, `${place}: labels is ${show(labels)}; it must be an object of texts`);
  }
  if (target && labels.target !== undefined && labels.target !== target) return { why: 'other_target' };
  const action = labels.action || 'cleanup';
  if (!ACTIONS.includes(action)) {
    throw new RefusedError(422, `${place}: unknown action ${show(action)}; there are ${ACTIONS.join(', ')}`);
  }
  const names = (labels.steps || '').split(/[\s,]+/).filter(Boolean);
  const steps = known(names.length === 1 && names[0] === 'all' ? null : names);
  const goal = goalOf(labels.goal || null, 'default');
  return { why: status === 'resolved' ? 'resolved' : DECLINED[action], steps, goal };
}

/** These steps, or those of an order that names none. */
function known(names) {
  const unknown = (names || []).find((name) => !LADDER.includes(name));
  if (unknown !== undefined) throw new RefusedError(422, `unknown step ${show(unknown)}; there are ${LADDER.join(', ')}`);
  return new Set(names && names.length ? names : DEFAULT);
}

function goalOf(given, otherwise) {
  if (given === undefined || given === null) return otherwise;
  if (typeof given !== 'number' && typeof given !== 'string') {
    throw new RefusedError(400, `goal is ${kind(given)}; send a ratio, a percentage or a size`);
  }
  try {
    return parseGoal(given);
  } catch (error) {
    throw new RefusedError(422, error.message);
  }
}

/** How deep lists and objects stand in one another; asked without recursion. */
function depth(value) {
  let deepest = 0;
  const left = [[value, 1]];
  while (left.length) {
    const [one, level] = left.pop();
    if (one === null || typeof one !== 'object') continue;
    deepest = Math.max(deepest, level);
    if (deepest > DEEPEST) break;
    for (const inner of Object.values(one)) left.push([inner, level + 1]);
  }
  return deepest;
}

function kind(value) {
  if (value === null || value === undefined) return 'missing';
  if (Array.isArray(value)) return 'a list';
  return { object: 'an object', string: 'a text', boolean: 'a boolean' }[typeof value] || 'a number';
}

function show(value) {
  const text = value === null || typeof value !== 'object' ? JSON.stringify(value === undefined ? null : value) : kind(value);
  return text.length <= 60 ? text : `${text.slice(0, 60)}…`;
}

module.exports = { LADDER, RefusedError, parse };
