'use strict';
// The part of oomguard that runs inside a Node application.
//
//   const guard = require('oomguard-hook').start();
//   guard.cache('bulk', { clear: () => bulk.clear(), size: () => bulk.bytes });
//
// One guard for a process, even where two copies of this package are loaded (the injected one and the application's).

const { Guard } = require('./lib/guard.js');
const errors = require('./lib/errors.js');

const PLACE = Symbol.for('oomguard.hook.guard');

/**
 * Start the hook, once, and return the guard of this process; never throws.
 *
 * The environment configures it: OOMGUARD_RUNTIME_DIR says where the sidecar listens, OOMGUARD_TARGET which target
 * this is, OOMGUARD_HOOK=0 turns it off. In a worker thread the guard works, but neither connects nor watches.
 */
function start(options) {
  let guard = globalThis[PLACE];
  if (guard === undefined) {
    guard = new Guard(process.env);
    Object.defineProperty(globalThis, PLACE, { value: guard, configurable: true });
  }
  guard.begin(options);
  return guard;
}

module.exports = { start, ...errors };
