// What run folders recorded, as curves: which quantities there are, and their points against any of four prices.

export const PRICES = {
  step: "optimizer steps",
  samples: "samples seen",
  flops: "training FLOPs",
  seconds: "seconds of training",
};
const METERS = {
  std: "collapse meter: spread (std)",
  std_samples: "collapse meter: spread over samples",
  teacher_std: "collapse meter: the teacher's spread",
  teacher_std_samples: "collapse meter: the teacher's spread over samples",
  rankme: "collapse meter: RankMe",
  rankme_centred: "collapse meter: RankMe, centred",
  mean_cosine: "collapse meter: mean cosine",
  dead_dims: "collapse meter: dead dimensions",
};

/** The records of many runs as they come in. What is known of a run is kept, so that only what follows need be sent. */
export class Records {
  constructor() {
    this.byRun = new Map();
  }

  /** Takes what the server sent; a run that was rewound starts anew. `offset` is the byte to go on from. */
  add({ run, records, offset }) {
    const isAnew = !this.byRun.has(run) || records.some((record) => record.rewound);
    const kept = isAnew ? { records: [] } : this.byRun.get(run);
    for (const record of records.slice(records.findLastIndex((each) => each.rewound) + 1)) kept.records.push(record);
    kept.offset = offset;
    this.byRun.set(run, kept);
  }

  of(run) {
    return this.byRun.get(run)?.records ?? [];
  }

  /** The address of the stream that goes on from what is known of these runs. */
  address(runs) {
    const asked = runs.map((run) => `run=${encodeURIComponent(`${run}@${this.byRun.get(run)?.offset ?? 0}`)}`);
    return `/api/live?${asked.join("&")}`;
  }

  /** Every quantity that these runs recorded: key to label, losses first. */
  quantities(runs) {
    const found = { total: "loss, weighted sum" }, scores = {}, meters = {};
    for (const run of runs)
      for (const record of this.of(run)) {
        for (const name of Object.keys(record.loss ?? {})) found[`loss/${name}`] = `loss term: ${name}`;
        for (const name of Object.keys(record.scores ?? {})) scores[`scores/${name}`] = `score: ${name.replaceAll("_", " ")}`;
        for (const name of Object.keys(record.meters ?? {})) meters[`meters/${name}`] = METERS[name] ?? name;
      }
    return { ...found, ...meters, ...scores };
  }

  /** [[x, y], ...] of one quantity of a run (an entry of the shelf) against one price. */
  points(entry, quantity, price) {
    const [kind, name] = [quantity.split("/")[0], quantity.slice(quantity.indexOf("/") + 1)];
    const points = [];
    for (const record of this.of(entry.name)) {
      const y = kind === "total" ? total(record, entry.weights) : record[kind]?.[name];
      const x = spent(record, entry, price);
      if (Number.isFinite(y) && Number.isFinite(x)) points.push([x, y]);
    }
    return points.sort(([a], [b]) => a - b);
  }

  /** The latest collapse meters of a run. */
  meters(run) {
    return this.of(run).findLast((record) => record.meters && Object.keys(record.meters).length)?.meters ?? null;
  }
}

/** The sum that was trained; nothing where a weight is not known, as in older runs, or a term was not finite. */
function total(record, weights) {
  const terms = Object.entries(record.loss ?? {});
  return terms.length ? terms.reduce((sum, [name, value]) => sum + product(weights?.[name], value), 0) : undefined;
}

const product = (a, b) => (Number.isFinite(a) && Number.isFinite(b) ? a * b : NaN);

/** What a record has cost: steps, seconds, samples, or FLOPs with those before the first step. */
function spent(record, entry, price) {
  if (price === "step") return record.step;
  if (price === "seconds") return record.seconds;
  if (price === "samples") return entry.clips_per_batch ? record.step * entry.clips_per_batch : undefined;
  return entry.flops_per_step ? (entry.prepare_flops ?? 0) + record.step * entry.flops_per_step : undefined;
}
