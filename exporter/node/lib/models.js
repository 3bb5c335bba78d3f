'use strict';
// Models: loaded at first use, once, unloaded when idle or when memory is short; never while in use.

const check = require('./check.js');
const { answer, text } = require('./answer.js');
const { ModelUnavailable } = require('./errors.js');
const { cancel, later, now, within } = require('./time.js');

/** Seconds after its load in which a model is not unloaded: loading it again would cost more than it gives. */
const MIN_RESIDENCY = 30;
const FIRST_BACK_OFF = 1;
const LONGEST_BACK_OFF = 60;
/** Seconds that the step waits at most for uses to end, and for an `unload` callback. */
const WAIT = 5;
const LONGEST_UNLOAD = 30;

class Model {
  constructor(models, name, options) {
    this.models = models;
    this.name = name;
    this.options = options;
    this.enabled = options.enabled !== false;
    this.idleTimeout = check.number(`model '${name}': idleTimeout`, options.idleTimeout, 0, Infinity);
    this.minResidency = check.number(`model '${name}': minResidency`, options.minResidency, 0, MIN_RESIDENCY);
    /** unloaded, loading, loaded, unloading or failed. */
    this.state = 'unloaded';
    this.value = undefined;
    this.pending = null;
    this.bytes = null;
    this.loadSeconds = null;
    this.loadedAt = 0;
    this.inUse = 0;
    this.usedAt = now();
    this.counts = { uses: 0, loads: 0, failures: 0, unloads: 0, busy: 0, returned: 0 };
    this.inRow = 0;
    this.retryAt = 0;
    this.error = undefined;
    this.timer = null;
    this.freed = [];
  }

  /**
   * Run `run` with the model, loading it first where needed, and return what it returns.
   *
   * Rejects with the application's own error where its load fails, with ModelUnavailable where the next try is not
   * due yet, or the model is disabled and has no fallback; and with what `run` throws.
   */
  async use(run) {
    const { fallback } = this.options;
    if (!this.enabled || (this.state === 'failed' && now() < this.retryAt)) {
      if (fallback) return run(await fallback());
      throw this.unavailable();
    }
    this.inUse++;
    this.counts.uses++;
    cancel(this.timer);
    try {
      return await run(await this.get());
    } finally {
      this.inUse--;
      this.usedAt = now();
      if (this.inUse === 0) this.left();
    }
  }

  async get() {
    while (this.state === 'unloading') await this.pending;
    if (this.state === 'loaded') return this.value;
    if (this.state !== 'loading') this.pending = this.load();
    return this.pending;
  }

  async load() {
    this.state = 'loading';
    this.counts.loads++;
    const rss = process.memoryUsage.rss();
    const began = now();
    try {
      this.value = await this.options.load();
    } catch (error) {
      this.state = 'failed';
      this.error = error;
      this.counts.failures++;
      this.retryAt = now() + Math.min(LONGEST_BACK_OFF, FIRST_BACK_OFF * 2 ** this.inRow++);
      throw error;
    }
    this.state = 'loaded';
    this.inRow = 0;
    this.error = undefined;
    this.loadedAt = now();
    this.loadSeconds = this.loadedAt - began;
    this.bytes = Math.max(0, process.memoryUsage.rss() - rss);
    return this.value;
  }

  unavailable() {
    if (!this.enabled) return new ModelUnavailable(`model '${this.name}' is disabled here (enabled: false) and has no fallback`);
    const left = Math.max(0, this.retryAt - now());
    return new ModelUnavailable(
      `model '${this.name}' could not be loaded (${text(this.error)}); the next try is in ${left.toFixed(1)} s`, left, this.error);
  }

  /** The last use has ended: whoever waits for it is told, and the idle timer begins. */
  left() {
    for (const freed of this.freed.splice(0)) freed();
    if (this.idleTimeout === Infinity || this.state !== 'loaded') return;
    this.timer = later(Math.max(this.idleTimeout, this.young()), () => {
      if (this.inUse === 0) return this.unload();
      return undefined;
    });
  }

  /** Seconds for which it is too young to be unloaded. */
  young() {
    return Math.max(0, this.loadedAt + this.minResidency - now());
  }

  /** Unload it now; bytes that went back to the system. Rejects where the application's `unload` does. */
  async unload() {
    if (this.state !== 'loaded' || this.inUse > 0) return 0;
    cancel(this.timer);
    this.state = 'unloading';
    const before = process.memoryUsage.rss();
    const { unload } = this.options;
    const { value } = this;
    this.value = undefined;
    const work = (async () => {
      if (unload) await within(Promise.resolve(unload(value)), LONGEST_UNLOAD, `unload did not end within ${LONGEST_UNLOAD} s`);
    })();
    this.pending = work.then(() => undefined, () => undefined).then(() => {
      this.state = 'unloaded';
      this.bytes = null;
      this.counts.unloads++;
    });
    await this.pending;
    this.models.collect();
    const returned = Math.max(0, before - process.memoryUsage.rss());
    this.counts.returned += returned;
    await work;
    return returned;
  }

  /** Whether nobody uses it any more, after `seconds` at most. */
  async freeWithin(seconds) {
    if (this.inUse === 0) return true;
    const free = new Promise((resolve) => this.freed.push(() => resolve(true)));
    return within(free, seconds, 'busy').catch(() => false);
  }

  reading() {
    return {
      name: this.name,
      state: this.state,
      bytes: this.bytes,
      load_seconds: this.loadSeconds,
      idle: this.state === 'loaded' && this.inUse === 0 ? now() - this.usedAt : null,
      in_use: this.inUse,
      ...this.counts,
      isolated: false,
      pid: null,
      enabled: this.enabled,
    };
  }
}

class Models {
  /** `collect` makes a full collection where that does no harm. */
  constructor(warn, collect) {
    this.warn = warn;
    this.collect = collect;
    this.models = new Map();
  }

  register(name, options) {
    check.name('model', name);
    check.functions(`model '${name}'`, options, ['load'], ['unload', 'fallback']);
    if (options.isolate) throw new RangeError(`model '${name}': isolate is for Python; put the model into a child process of your own`);
    if (this.models.has(name)) this.warn(`model '${name}' was registered again: the later one counts`);
    const model = new Model(this, name, options);
    this.models.set(name, model);
    return model;
  }

  reading() {
    return [...this.models.values()].map((model) => model.reading());
  }

  /**
   * The step `models`: unload what is loaded, the largest first; one in use is waited for, then counted as busy. One that
   * was loaded less than its residency ago is left alone, unless it is named: then somebody wants just that.
   */
  async take(name, limit) {
    const among = [...this.models.values()].filter((model) => name === null || model.name === name);
    if (!among.length) return answer('skipped', 'nothing_registered');
    const began = now();
    const until = began + Math.min(WAIT, limit);
    const details = { unloaded: {}, returned: 0, busy: [], fresh: [] };
    const failed = {};
    const loaded = among.filter((model) => model.state === 'loaded');
    // Those that nobody uses first, so that none of them waits behind one that is in use.
    loaded.sort((one, other) => (one.inUse > 0) - (other.inUse > 0) || (other.bytes || 0) - (one.bytes || 0));
    for (const model of loaded) {
      if (name === null && model.young() > 0) {
        details.fresh.push(model.name);
      } else if (!(await model.freeWithin(Math.max(0, until - now())))) {
        model.counts.busy++;
        details.busy.push(model.name);
      } else {
        try {
          details.unloaded[model.name] = await model.unload();
          details.returned += details.unloaded[model.name];
        } catch (error) {
          failed[model.name] = text(error); // its callback's trouble; the hook has let go of the model all the same
          details.unloaded[model.name] = null;
        }
      }
    }
    if (Object.keys(failed).length) details.failed = failed;
    if (!Object.keys(details.unloaded).length) return answer('skipped', loaded.length ? 'busy' : 'nothing_registered', { details });
    return answer('done', '', { seconds: now() - began, details });
  }
}

module.exports = { Models };
