'use strict';
// Wrong arguments at a registration: the one place where the guard throws at once.

const NAME = 100;

function name(what, value) {
  if (typeof value !== 'string') throw new TypeError(`${what} name ${String(value)}: must be text`);
  if (!value || value.length > NAME) throw new RangeError(`${what} name '${value.slice(0, NAME)}': must have 1 to ${NAME} characters`);
}

/** Each of `needed` must be a function, each of `optional` one or undefined. */
function functions(what, options, needed, optional = []) {
  if (options === null || typeof options !== 'object') throw new TypeError(`${what}: options must be an object`);
  for (const key of needed) {
    if (typeof options[key] !== 'function') throw new TypeError(`${what}: ${key} must be a function, not ${typeof options[key]}`);
  }
  for (const key of optional) {
    if (options[key] !== undefined && typeof options[key] !== 'function') {
      throw new TypeError(`${what}: ${key} must be a function, not ${typeof options[key]}`);
    }
  }
}

/** A number of at least `least`; `otherwise` where it is undefined. */
function number(what, value, least, otherwise) {
  if (value === undefined && otherwise !== undefined) return otherwise;
  if (typeof value !== 'number' || !(value >= least)) throw new RangeError(`${what} ${String(value)}: must be a number of at least ${least}`);
  return value;
}

module.exports = { name, functions, number };
