'use strict';
// Taking the steps that were ordered: one run at a time, measured step by step, until the goal is reached.

const { goalBytes } = require('../size.js');
const { now } = require('../time.js');
const { LADDER } = require('./order.js');

class Runs {
  /** `take` takes a step and returns a promise of its answer; `look` tells the level; `defaultGoal` the goal. */
  constructor(take, look, defaultGoal) {
    this.take = take;
    this.look = look;
    this.defaultGoal = defaultGoal;
    this.count = 0;
    this.current = null;
  }

  /** Number of the run under way; null: there is none. */
  get underWay() {
    return this.current && this.current.number;
  }

  /** Take the steps, or hand them to the run under way; a promise of what to answer. `act` false: alerts are not followed. */
  async order({ steps, goals, declined }, act) {
    const common = { pid: process.pid, ...(declined && { declined }) };
    if (!steps.size) return { outcome: 'nothing_asked', ...common };
    if (declined && !act) return { outcome: 'off', ...common };
    if (this.current) {
      for (const step of steps) this.current.steps.add(step);
      this.current.goals.push(...goals);
      return { outcome: 'joined', run: this.current.number, ...common };
    }
    const run = { number: ++this.count, steps: new Set(steps), goals: [...goals], begun: new Set() };
    this.current = run;
    try {
      return { run: run.number, ...(await this.climb(run)), ...common };
    } finally {
      if (this.current === run) this.current = null;
    }
  }

  async climb(run) {
    const began = now();
    const first = this.look();
    let level = first;
    const steps = [];
    let next;
    while ((next = this.next(run, level)).step) {
      const answer = await this.take(next.step);
      const after = this.look();
      steps.push({ ...answer, rss_before: level.rss, rss_after: after.rss, freed: level.rss - after.rss });
      level = after;
    }
    return {
      outcome: next.outcome,
      goal: this.goal(run, level),
      limit: level.limit,
      used_before: first.used,
      used_after: level.used,
      used_of: level.origin,
      rss_before: first.rss,
      rss_after: level.rss,
      freed: first.rss - level.rss,
      seconds: now() - began,
      stall: steps.reduce((sum, step) => sum + step.stall, 0),
      steps,
    };
  }

  /** The next step, or how it ended: from then on nobody can join, for nothing more is taken. */
  next(run, level) {
    const goal = this.goal(run, level);
    let outcome;
    if (goal !== null && level.used <= goal) {
      outcome = run.begun.size ? 'goal_reached' : 'not_needed';
    } else {
      const step = LADDER.find((name) => run.steps.has(name) && !run.begun.has(name));
      if (step) {
        run.begun.add(step);
        return { step };
      }
      outcome = goal === null ? 'done' : 'goal_not_reached';
    }
    this.current = null;
    return { outcome };
  }

  /** Lowest of the goals in bytes; null where one of them is none, or can't be told in bytes. */
  goal(run, level) {
    const sizes = run.goals.map((wanted) => {
      // An alert has measured the whole service: one process of it can't say that nothing is needed.
      if (wanted === 'all' || (wanted === 'default' && level.origin === 'process')) return null;
      return goalBytes(wanted === 'default' ? this.defaultGoal() : wanted, level.limit);
    });
    return sizes.includes(null) || !sizes.length ? null : Math.min(...sizes);
  }
}

module.exports = { Runs };
