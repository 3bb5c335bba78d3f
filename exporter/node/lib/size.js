'use strict';
// Sizes, goals and limits as people write them: a ratio (0.7), a percentage (70%) or a size (450MiB).

const UNITS = {
  '': 1, b: 1,
  k: 2 ** 10, ki: 2 ** 10, kib: 2 ** 10, kb: 1e3,
  m: 2 ** 20, mi: 2 ** 20, mib: 2 ** 20, mb: 1e6,
  g: 2 ** 30, gi: 2 ** 30, gib: 2 ** 30, gb: 1e9,
  t: 2 ** 40, ti: 2 ** 40, tib: 2 ** 40, tb: 1e12,
};
const NUMBER = /^\s*(\d+(?:\.\d+)?|\.\d+)\s*(%|[A-Za-z]*)\s*$/;
/** A bare number above 1 and below this is no number of bytes that somebody meant. */
const LEAST = 2 ** 20;
const LONGEST = 40;

/** Read a goal: { ratio } or { size }. Throws a RangeError that says what is expected. */
function parseGoal(given) {
  const text = String(given).slice(0, LONGEST);
  const match = NUMBER.exec(text);
  if (match) {
    const number = Number(match[1]);
    const unit = match[2].toLowerCase();
    if (unit === '%' && number > 0 && number <= 100) return { ratio: number / 100 };
    if (!unit && number > 0 && number <= 1) return { ratio: number };
    const size = number * (UNITS[unit] || 0);
    if (size >= (unit ? 1 : LEAST)) return { size: Math.floor(size) };
  }
  throw new RangeError(`goal '${text}' is neither a ratio (0.7), nor a percentage (70%), nor a size (450MiB) above zero`);
}

/** Bytes of a goal under a limit; null for a part of a limit that is not known. */
function goalBytes(goal, limit) {
  if (goal.ratio !== undefined) return limit === null ? null : Math.floor(goal.ratio * limit);
  return limit === null ? goal.size : Math.min(goal.size, limit);
}

/** Bytes: a whole number above zero, or a text with a unit. Throws a RangeError that begins with `what`. */
function parseSize(what, given) {
  if (typeof given === 'number' && given > 0 && Number.isFinite(given)) return Math.floor(given);
  if (typeof given === 'string') {
    const match = NUMBER.exec(given.slice(0, LONGEST));
    const size = match ? Number(match[1]) * (UNITS[match[2].toLowerCase()] || 0) : 0;
    if (size >= 1) return Math.floor(size);
  }
  throw new RangeError(`${what} ${String(given).slice(0, LONGEST)}: must be bytes or a size such as '450MiB'`);
}

/** Bytes of OOMGUARD_LIMIT, else of MEMORY_LIMIT_MB (units of 2^20); null where neither is a size. */
function parseLimit(size, megabytes) {
  const text = size || (megabytes ? `${megabytes}MiB` : '');
  if (!text) return null;
  try {
    const { size: bytes } = parseGoal(text);
    return bytes === undefined ? null : bytes;
  } catch {
    return null;
  }
}

module.exports = { parseGoal, goalBytes, parseSize, parseLimit };
