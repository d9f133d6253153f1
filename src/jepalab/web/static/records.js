// What run folders recorded, as curves: which quantities there are, and their points against any of four prices.

export const PRICES = {
  step: "optimizer steps",
  samples: "samples seen",
  flops: "training FLOPs",
  seconds: "seconds of training",
};
const METERS = {
  std: "collapse meter: spread (std)",
  rankme: "collapse meter: RankMe",
  rankme_centred: "collapse meter: RankMe, centred",
  mean_cosine: "collapse meter: mean cosine",
  dead_dims: "collapse meter: dead dimensions",
};

/** The records of many runs as they come in. */
export class Records {
  constructor() {
    this.byRun = new Map();
  }

  /** Takes what the server sent; a run that was rewound starts anew. */
  add(run, records) {
    let kept = this.byRun.get(run) ?? [];
    for (const record of records) {
      if (record.rewound) kept = [];
      else kept.push(record);
    }
    this.byRun.set(run, kept);
  }

  of(run) {
    return this.byRun.get(run) ?? [];
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

  /** The latest collapse meters of a run, and all of one of them. */
  meters(run) {
    return this.of(run).findLast((record) => record.meters && Object.keys(record.meters).length)?.meters ?? null;
  }
}

function total(record, weights) {
  if (!record.loss) return undefined;
  return Object.entries(record.loss).reduce((sum, [name, value]) => sum + (weights?.[name] ?? 1) * value, 0);
}

function spent(record, entry, price) {
  if (price === "step") return record.step;
  if (price === "seconds") return record.seconds;
  const each = price === "samples" ? entry.clips_per_batch : entry.flops_per_step;
  return each ? record.step * each : undefined;
}
