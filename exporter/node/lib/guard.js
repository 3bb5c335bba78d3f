'use strict';
// The guard: what the application holds, and what ties the hook's parts to the life of its process.

const { isMainThread } = require('worker_threads');
const { answer, text } = require('./answer.js');
const { Caches } = require('./caches.js');
const { Collector } = require('./collect.js');
const { GcStats } = require('./gcstats.js');
const heap = require('./heap.js');
const { hello } = require('./hello.js');
const { Http } = require('./http.js');
const { look } = require('./level.js');
const { Link } = require('./link.js');
const { Loop } = require('./loop.js');
const { Alone } = require('./alone.js');
const { Requests } = require('./requests.js');
const { Shedding } = require('./shedding.js');
const { parseLimit } = require('./size.js');
const { Streams } = require('./streams.js');

const WARNINGS = 20;

/** One for a process. Its methods throw, at once, for a wrong argument, and never otherwise but where they say so. */
class Guard {
  constructor(environ) {
    this._environ = environ;
    this._warnings = [];
    const warn = (words) => this._warn(words);
    this._collector = new Collector();
    this._caches = new Caches(warn);
    // What the application asks for is loaded then: an application pays for what it uses.
    this._lazy = {
      models: () => new (require('./models.js').Models)(warn, () => this._collectGently()),
      budgets: () => new (require('./budgets.js').Budgets)(warn),
      limits: () => new (require('./limits.js').Limits)(environ, warn),
    };
    this._made = {};
    this._streams = new Streams(environ, warn);
    this._requests = new Requests();
    this._shedding = new Shedding(() => this._level(), () => this._http && this._http.refuseFirst());
    this._steps = {
      caches: (name) => this._caches.take(name),
      gc: (name, within) => this._gc(within),
      trim: () => answer('unsupported', 'Node gives no way to call malloc_trim'),
      streams: (name) => this._streams.take(name),
      models: (name, within) => (this._made.models ? this._made.models.take(name, within) : answer('skipped', 'nothing_registered')),
      shed: (name) => this._shedding.take(name),
    };
    /** The step under way: there is one at a time, whoever orders them. */
    this._work = Promise.resolve();
    /** Whether a step has let something go since the last collection: then another one gives something. */
    this._letGo = false;
    this._state = ['off', 'not started'];
    this._begun = false;
  }

  // -- what the application registers

  /** Let the step `caches` clear this cache; a name that is taken is replaced (see `status`). */
  cache(name, options) {
    this._caches.register(name, options);
  }

  /** A mapping bounded in bytes, which the step `caches` clears. */
  lru(name, options) {
    const { Lru } = require('./lru.js');
    const lru = new Lru(name, options);
    this._caches.register(name, lru.cache());
    return lru;
  }

  model(name, options) {
    return this._part('models').register(name, options);
  }

  budget(name, options) {
    return this._part('budgets').get(name, options);
  }

  limit(name, most) {
    return this._part('limits').get(name, most);
  }

  stream(name, options) {
    return this._streams.stream(name, options);
  }

  /** A middleware for express and the like, also `(request, response, next)` of plain http: the two /admin paths. */
  middleware() {
    const { Endpoint } = require('./admin/endpoint.js'); // only those who mount it pay for it
    const endpoint = new Endpoint(this._environ, {
      take: (step) => this._step({ step }),
      read: () => this._reading('admin'),
      look: () => this._level(),
      acts: () => this._alone === undefined || this._alone.acts(),
    });
    return (request, response, next) => {
      if (this._environ.OOMGUARD_HOOK === '0' || !endpoint.serve(request, response)) next();
    };
  }

  // -- what it tells

  /** The body of a health route, as docs/node.md has it. */
  health() {
    const { health } = require('./health.js');
    const own = this._ownLimit();
    return {
      ...health(this._environ, look(own), own),
      models_loaded: this._list('models').filter((model) => model.state === 'loaded').length,
      streams_open: this._streams.open.size,
      shedding: this._shedding.on(),
    };
  }

  /** Write one line to standard error: this text, and where memory is now. */
  log(words) {
    const { rss, heapUsed, external } = process.memoryUsage();
    const mb = (bytes) => `${(bytes / heap.MIB).toFixed(0)} MB`;
    process.stderr.write(
      `oomguard: ${words}: rss ${mb(rss)}, heap ${mb(heapUsed)} of ${mb(heap.oldLimit())}, external ${mb(external)}\n`);
  }

  /** For people and logs: `state`, `reason`, the names of the `caches`, and `warnings`. */
  status() {
    const [state, reason] = this._link ? [this._link.state, this._link.reason] : this._state;
    return { state, reason, caches: this._caches.names(), warnings: [...this._warnings] };
  }

  /** End the connection and the watching; `start()` begins again. What was registered stays. */
  stop() {
    if (!this._begun) return;
    this._begun = false;
    for (const part of ['_link', '_gcstats', '_loop', '_http', '_alone']) {
      if (this[part]) this[part].stop();
      this[part] = undefined;
    }
    this._state = ['stopped', ''];
  }

  // -- its life

  /** Start, as the environment says; throws for wrong options only. */
  begin({ maxStreams, shedAbove, autonomous = false } = {}) {
    if (maxStreams !== undefined) this._streams.limitTo(maxStreams);
    if (!this._begun) this._begin(Boolean(autonomous));
    else if (autonomous && this._alone) this._alone.autonomous = true;
    if (shedAbove !== undefined) this._shedding.above(shedAbove);
  }

  _begin(autonomous) {
    const environ = this._environ;
    if (environ.OOMGUARD_HOOK === '0') return void (this._state = ['off', 'OOMGUARD_HOOK=0']);
    if (!isMainThread) return void (this._state = ['off', 'this is a worker thread: the main thread speaks for the process']);
    this._begun = true;
    try {
      this._gcstats = new GcStats((full) => this._alone && this._alone.collected(full));
      this._http = new Http(this._requests, this._streams, this._shedding);
      if (this._shedding.level !== null) this._http.refuseFirst();
      const runtimeDir = environ.OOMGUARD_RUNTIME_DIR;
      this._alone = new Alone(environ, {
        take: (step) => this._step({ step }),
        collect: () => this._collector.collect().seconds,
        look: () => this._level(),
        autonomous,
        configured: Boolean(runtimeDir),
      });
      this._state = ['off', 'OOMGUARD_RUNTIME_DIR is not set: no sidecar'];
      if (!runtimeDir) return;
      this._loop = new Loop();
      this._link = new Link(runtimeDir, () => hello(environ.OOMGUARD_TARGET || ''), (question) => this._answer(question));
    } catch (error) {
      this.stop();
      this._state = ['failed', text(error)];
    }
  }

  // -- what the sidecar is told

  async _answer(question) {
    if (this._alone) this._alone.heard();
    if (question.ask === 'reading') return { reading: this._reading('sidecar') };
    if (question.ask === 'step') return { step: await this._step(question) };
    return { error: `unknown ask '${question.ask.slice(0, 40)}'` };
  }

  /** Take a step, behind the one under way; never rejects. */
  _step(question) {
    const taken = this._work.then(() => this._take(question));
    this._work = taken;
    return taken;
  }

  async _take({ step, name, within }) {
    const known = String(step).slice(0, 40);
    if (!Object.hasOwn(this._steps, known)) return { step: known, ...answer('unsupported', `this hook has no step '${known}'`) };
    try {
      const seconds = typeof within === 'number' ? within : Infinity;
      const taken = await this._steps[known](typeof name === 'string' ? name : null, seconds);
      if (taken.status === 'done') this._letGo = known !== 'gc';
      return { step: known, ...taken };
    } catch (error) {
      return { step: known, ...answer('failed', text(error)) };
    }
  }

  _gc(within) {
    const objection = this._collector.objection(within);
    if (objection) return answer('skipped', objection[0], { details: objection[1] });
    if (!this._letGo && this._alone && this._alone.heap.isCounted()) {
      return answer('unsupported', "the heap is above 80 % of V8's limit: a collection that gives nothing may end the process");
    }
    const rss = process.memoryUsage.rss();
    const { seconds, freed } = this._collector.collect();
    const details = { heap: freed, returned: rss - process.memoryUsage.rss() };
    return answer('done', '', { seconds, stall: seconds, details });
  }

  /** After an unload: what the model held is given back only by a collection. */
  _collectGently() {
    if (!this._collector.objection(Infinity)) this._collector.collect();
  }

  _reading(reader) {
    const reading = {
      gc: guarded(() => (this._gcstats ? this._gcstats.reading() : off())),
      heap: guarded(() => heap.reading()),
      allocator: { status: 'unsupported', reason: 'Node tells nothing of malloc' },
      loop: guarded(() => (this._loop ? this._loop.reading(reader) : off())),
      caches: this._caches.reading(),
      models: this._list('models'),
      streams: this._streams.reading(),
      requests: this._requests.reading(),
      shed: this._shedding.reading(),
      budgets: this._list('budgets'),
      limits: this._list('limits'),
    };
    if (this._alone) reading.alone = this._alone.reading();
    if (this._warnings.length) reading.warnings = [...this._warnings];
    return reading;
  }

  _part(name) {
    if (!this._made[name]) this._made[name] = this._lazy[name]();
    return this._made[name];
  }

  /** A part's reading; nothing where nobody has asked for the part. */
  _list(name) {
    return this._made[name] ? this._made[name].reading() : [];
  }

  _level() {
    return look(this._ownLimit());
  }

  _ownLimit() {
    return parseLimit(this._environ.OOMGUARD_LIMIT, this._environ.MEMORY_LIMIT_MB);
  }

  _warn(words) {
    if (this._warnings.length < WARNINGS && !this._warnings.includes(words)) this._warnings.push(words.slice(0, 200));
  }
}

function off() {
  return { status: 'absent', reason: 'not started' };
}

/** One part of a reading must not take the others along. */
function guarded(read) {
  try {
    return read();
  } catch (error) {
    return { status: 'failed', reason: text(error) };
  }
}

module.exports = { Guard };
