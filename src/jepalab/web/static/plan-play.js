// One episode, asked for a few steps at a time: stopping is not asking on, and the worker keeps its models.

import { work } from "./dom.js";

const FIRST = 2; // plans in the first request, which tells how long a step takes
const LEG_MS = 400; // how long a request should take
const PATIENCE_MS = 900; // for a request to end after a stop, before the worker is ended with it
const LONG_MS = 1200; // of waiting, before it is worth a word

export class Play {
  /** asked: what "go" takes. hear: is given what the worker tells, or null after long waiting; nothing after a stop. */
  constructor(asked, hear) {
    this.asked = asked;
    this.hear = hear;
    this.isStopped = false;
    this.abort = new AbortController();
  }

  /** Plays to the end: [{ step, left, has_arrived, ... }] of all agents; null if it was stopped. */
  async run() {
    const taken = this.asked.how.num_executed; // of each plan, so that a request ends where a plan does
    let answer = await this.leg({ ...this.asked, what: "go", at_once: FIRST * taken });
    while (answer && !answer.is_over) {
      const each = taken * answer.agents.reduce((sum, agent) => sum + (agent.has_arrived ? 0 : agent.ms), 0);
      const plans = Math.max(1, Math.min(Math.floor(100 / taken), Math.round(LEG_MS / Math.max(each, 1))));
      answer = await this.leg({ what: "on", episode: answer.episode, at_once: plans * taken });
    }
    return answer?.agents ?? null;
  }

  async leg(given) {
    const slow = setTimeout(() => { if (!this.isStopped) this.hear(null); }, LONG_MS);
    const tell = (event, value) => {
      if (event === "began") clearTimeout(slow);
      if (event === "progress" && !this.isStopped) this.hear(value);
    };
    this.pending = work("plan", given, { tell, signal: this.abort.signal });
    try {
      const answer = await this.pending;
      return this.isStopped ? null : answer;
    } catch (error) {
      if (this.isStopped) return null;
      throw error;
    } finally {
      clearTimeout(slow);
      this.pending = null;
    }
  }

  /** At once for the reader. A request that does not end soon is cancelled at the server, which ends the worker. */
  stop() {
    this.isStopped = true;
    setTimeout(() => { if (this.pending) this.abort.abort(); }, PATIENCE_MS);
  }
}
