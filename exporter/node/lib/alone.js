'use strict';
// What the hook does by itself: near V8's limit always, and near the limit of memory where no sidecar looks.

const heap = require('./heap.js');
const { NearLimit } = require('./nearlimit.js');
const { later, cancel, now } = require('./time.js');
const { goalBytes } = require('./size.js');
const { threshold } = require('./health.js');

/** Seconds without a question after which a configured sidecar counts as missing. */
const MISSING = 10;
/** Seconds between two looks at memory. */
const LOOK = 1;
/** Seconds until the next run after one that did not reach the goal; twice as long each time. */
const FIRST_BACK_OFF = 5;
const LONGEST_BACK_OFF = 300;
const MODERATE = ['caches', 'gc'];
const ALL = ['caches', 'gc', 'streams', 'models', 'gc'];

class Alone {
  /**
   * `take` takes a step and returns a promise of its answer; `collect` collects, whatever it costs, and returns
   * the seconds; `look` tells the
   * level of memory. `configured`: there is a sidecar to wait for; `autonomous`: the hook guards without one.
   */
  constructor(environ, { take, collect, look, configured, autonomous }) {
    this.environ = environ;
    this.take = take;
    this.collect = collect;
    this.look = look;
    this.configured = configured;
    this.autonomous = autonomous;
    this.asked = now();
    this.runs = 0;
    this.freed = 0;
    this.reason = '';
    this.backOff = 0;
    this.notBefore = 0;
    this.heap = new NearLimit(heap.oldLimit(), heap.old, collect, () => this.relieve());
    this.watch();
  }

  stop() {
    cancel(this.timer);
  }

  /** A sidecar has asked. */
  heard() {
    this.asked = now();
  }

  get on() {
    return (this.autonomous && !this.configured) || (this.configured && now() - this.asked > MISSING);
  }

  collected(full) {
    if (this.acts()) this.heap.look(full).catch(() => undefined);
  }

  /** Whether automatic actions are wanted at all. */
  acts() {
    return !/^\s*(?:0|false|no|off)\s*$/i.test(this.environ.OOMGUARD_ACT || this.environ.MEMORY_CLEANUP || '');
  }

  async relieve() {
    await this.run('heap', ['caches', 'models'], () => !this.heap.isNear());
  }

  watch() {
    this.timer = later(LOOK, async () => {
      try {
        if (this.on && this.acts() && now() >= this.notBefore) await this.guard();
      } finally {
        this.watch();
      }
    });
  }

  /** As the sidecar would: from `high` on what is cheap, from `critical` on everything, until the goal is reached. */
  async guard() {
    const { used, limit } = this.look();
    if (limit === null) return;
    const bytes = (name, ratio) => goalBytes(threshold(this.environ[name], { ratio }), limit);
    if (used < bytes('OOMGUARD_HIGH', 0.8)) return;
    const goal = bytes('OOMGUARD_GOAL', 0.7);
    await this.run('memory', used < bytes('OOMGUARD_CRITICAL', 0.9) ? MODERATE : ALL, () => this.look().used <= goal);
    const reached = this.look().used <= goal;
    this.backOff = reached ? 0 : Math.min(LONGEST_BACK_OFF, 2 * this.backOff || FIRST_BACK_OFF);
    this.notBefore = now() + this.backOff;
  }

  /** Take steps until `enough` says so; on the heap, each that let something go is followed by a collection. */
  async run(reason, steps, enough) {
    this.runs++;
    this.reason = reason;
    const measure = reason === 'heap' ? heap.used : () => process.memoryUsage.rss();
    const before = measure();
    for (const step of steps) {
      const { status } = await this.take(step);
      if (reason === 'heap' && status === 'done') this.collect();
      if (enough()) break;
    }
    this.freed += Math.max(0, before - measure());
  }

  reading() {
    return { on: this.on, reason: this.reason, runs: this.runs, freed: this.freed };
  }
}

module.exports = { Alone };
