'use strict';
// What a health route says: how much memory is used, and whether that is well.

const os = require('os');
const { goalBytes, parseGoal } = require('./size.js');

const MIB = 2 ** 20;
/** The sidecar's defaults, and the settings that change them. */
const STATES = [['critical', 'OOMGUARD_CRITICAL', { ratio: 0.9 }], ['degraded', 'OOMGUARD_HIGH', { ratio: 0.8 }]];

/** The fields of the sidecar's /health; MB are of 2^20 bytes. `level` is what `look` tells. */
function health(environ, level, ownLimit) {
  const limit = level.limit === null ? os.totalmem() : level.limit;
  const { used } = level;
  return {
    status: status(environ, used, limit),
    target: environ.OOMGUARD_TARGET || os.hostname(),
    memory_mb: round(used / MIB),
    memory_percent: round((100 * used) / limit),
    memory_limit_mb: round(limit / MIB),
    memory_available_mb: round(Math.max(0, limit - used) / MIB),
    limit_origin: level.limit === null ? 'machine' : ownLimit === limit ? 'configured' : 'cgroup',
    memory_of: level.origin,
  };
}

function status(environ, used, limit) {
  for (const [state, name, otherwise] of STATES) if (used >= goalBytes(threshold(environ[name], otherwise), limit)) return state;
  return 'healthy';
}

/** A setting's goal, or the default where it is not set or no goal. */
function threshold(given, otherwise) {
  try {
    return given ? parseGoal(given) : otherwise;
  } catch {
    return otherwise;
  }
}

function round(value) {
  return Math.round(value * 10) / 10;
}

module.exports = { health, threshold };
