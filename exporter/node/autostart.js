'use strict';
// What NODE_OPTIONS=--require loads in front of every Node program of the target: it says nothing, throws nothing,
// and starts the hook only where an application runs. Keep its syntax to what Node 4 reads: below 18 it does nothing.

/* eslint-disable no-var */
var HOUSEKEEPERS =
  /^(?:npm|npx|yarn|yarnpkg|pnpm|pnpx|corepack|node-gyp)(?:-cli)?(?:-[0-9][^/\\]*)?(?:\.[cm]?js)?$/;

/** Whether this process is the application's own main thread, and no package manager or one-liner. */
function wanted() {
  var env = process.env;
  if (!env.OOMGUARD_RUNTIME_DIR || env.OOMGUARD_HOOK === '0' || env.OOMGUARD_INJECT === '0') return false;
  if (!(parseInt(process.versions.node, 10) >= 18) || process.versions.electron || process.versions.bun) return false;
  // No script: -e, -p, a REPL, or a program on standard input.
  var script = process.argv[1];
  if (!script || script === '-' || process.execArgv.indexOf('--check') >= 0 || process.execArgv.indexOf('-c') >= 0) {
    return false;
  }
  if (HOUSEKEEPERS.test(script.split(/[\\/]/).pop())) return false;
  return require('worker_threads').isMainThread;
}

try {
  if (wanted()) require('./index.js').start();
} catch (error) {
  // A hook that can't start must not be noticed.
}
