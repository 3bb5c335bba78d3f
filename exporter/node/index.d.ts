// Types of oomguard-hook. Sizes are bytes, times seconds; a size may be written with a unit: '512MiB', '1.5GB'.

import type { IncomingMessage, ServerResponse } from 'http';

/** What start() takes beside the environment. */
export interface Options {
  /** So many event streams may be open at once (default: MAX_SSE_CONNECTIONS, else any number). */
  maxStreams?: number;
  /** Refuse new requests above this level of memory: a ratio (0.9), a percentage ('90%') or a size. */
  shedAbove?: number | string;
  /** Guard this process where no sidecar is configured. */
  autonomous?: boolean;
}

export interface CacheOptions {
  /** Clears it; may be asynchronous, and is given 10 s. */
  clear(): unknown;
  /** Bytes that it holds; asked about once a second. */
  size?(): number;
  entries?(): number;
  /** Drops what has expired; called before `clear`. */
  expire?(): unknown;
}

export interface LruOptions<K, V> {
  maxBytes: number | string;
  maxItems?: number;
  /** Bytes of a value and its key; by default a rough estimate. */
  sizeOf?(value: V, key: K): number;
}

/** A mapping that gives up what was not used for longest; the step `caches` clears it. */
export interface Lru<K, V> {
  readonly size: number;
  readonly bytes: number;
  readonly maxBytes: number;
  readonly maxItems: number;
  readonly evictions: number;
  readonly hits: number;
  readonly misses: number;
  get(key: K): V | undefined;
  has(key: K): boolean;
  /** One that is larger than `maxBytes` by itself is not kept. */
  set(key: K, value: V): this;
  delete(key: K): boolean;
  clear(): void;
}

export interface ModelOptions<M, F = M> {
  load(): M | PromiseLike<M>;
  /** Called with the model when it is unloaded: close its session, dispose of its tensors. */
  unload?(model: M): unknown;
  /** Seconds without use after which it is unloaded (default: never). */
  idleTimeout?: number;
  /** Seconds after its load in which it is not unloaded (default: 30). */
  minResidency?: number;
  /** False on a box that must go without it (default: true). */
  enabled?: boolean;
  /** What takes its place where it is disabled, or could not be loaded a moment ago. */
  fallback?(): F | PromiseLike<F>;
}

export interface Model<M, F = M> {
  readonly name: string;
  readonly state: 'unloaded' | 'loading' | 'loaded' | 'unloading' | 'failed';
  /**
   * Run `run` with the model, loading it first where needed.
   *
   * Rejects with the error of `load`, with ModelUnavailable (disabled, or the next try is not due yet), or with what
   * `run` throws.
   */
  use<R>(run: (model: M | F) => R | PromiseLike<R>): Promise<R>;
}

export interface Reservation {
  readonly bytes: number;
  /** Give the bytes back; once, however often it is called. `using` does it, where there is Symbol.dispose. */
  release(): void;
}

export interface Budget {
  readonly name: string;
  readonly limit: number;
  readonly reserved: number;
  readonly refused: number;
  readonly state: 'ok' | 'warning' | 'critical';
  canReserve(bytes: number): boolean;
  /** Throws BudgetExceeded. */
  reserve(bytes: number): Reservation;
  /** Rejects with BudgetExceeded. */
  use<R>(bytes: number, run: () => R | PromiseLike<R>): Promise<R>;
}

export interface Limit {
  readonly name: string;
  readonly limit: number;
  readonly inUse: number;
  /** Run `run` when it is its turn. */
  use<R>(run: () => R | PromiseLike<R>): Promise<R>;
}

export interface Stream {
  readonly name: string;
  /** Say that it is in use: it is idle since now. */
  touch(): void;
  close(reason?: 'client' | 'server' | 'error'): void;
}

export interface Health {
  status: 'healthy' | 'degraded' | 'critical';
  target: string;
  memory_mb: number;
  memory_percent: number;
  memory_limit_mb: number;
  memory_available_mb: number;
  limit_origin: 'machine' | 'configured' | 'cgroup';
  memory_of: 'process' | 'cgroup';
  models_loaded: number;
  streams_open: number;
  shedding: boolean;
}

export interface Status {
  state: 'off' | 'connecting' | 'connected' | 'refused' | 'stopped' | 'failed';
  reason: string;
  caches: string[];
  warnings: string[];
}

/** One for a process. What registers throws TypeError or RangeError, at once, for a wrong argument. */
export interface Guard {
  /** Let the step `caches` clear this cache. */
  cache(name: string, options: CacheOptions): void;
  lru<K = unknown, V = unknown>(name: string, options: LruOptions<K, V>): Lru<K, V>;
  model<M, F = M>(name: string, options: ModelOptions<M, F>): Model<M, F>;
  /** The budget of this name; the same one each time. */
  budget(name: string, options: { limit: number | string }): Budget;
  /** The limit of this name; the same one each time. Without a number that of MAX_CONCURRENT_AGENTS. */
  limit(name: string, most?: number): Limit;
  /** Something else that stays open; `evict` ends it when the step `streams` asks for that. */
  stream(name: string, options?: { evict?: () => unknown }): Stream;
  /** Serves GET /admin/memory and POST /admin/cleanup; for express and the like, and for plain http. */
  middleware(): (request: IncomingMessage, response: ServerResponse, next: () => unknown) => void;
  health(): Health;
  /** Write one line to standard error: this text, and where memory is now. */
  log(text: string): void;
  status(): Status;
  stop(): void;
}

export class BudgetExceeded extends RangeError {
  readonly code: 'OOMGUARD_BUDGET_EXCEEDED';
  readonly asked: number;
  readonly left: number;
}

export class ModelUnavailable extends Error {
  readonly code: 'OOMGUARD_MODEL_UNAVAILABLE';
  /** Seconds until the next try; undefined for a model that is disabled. */
  readonly retryAfter?: number;
}

/** Start the hook, once, and return the guard of this process. */
export function start(options?: Options): Guard;
